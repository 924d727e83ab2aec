"""`retinue fork`: a new run that shares another's past. Loads the project; hosts nothing."""

from __future__ import annotations

from collections import Counter

import click

from retinue.ingress.connecting import connect
from retinue.ingress.exits import Exit
from retinue.ingress.render import counted, short
from retinue.ingress.steering import Forked
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import Limits, budget_of, parsed, verb, what_follows
from retinue.runs.contracts import Budget
from retinue.runs.forking import Given


@verb("fork")
@click.argument("run")
@click.option("--at", required=True, metavar="STEP", help="A step's key or part of it, checkpoint:N, or start.")
@click.option("--with", "value", metavar="JSON", help="What the step came to, instead of taking it anew.")
@click.option("--version", type=click.Choice(["current", "pinned"]), default="current", help="Whose code. [current]")
@click.option("--budget", "limits", type=Limits(), multiple=True, metavar="NAME=N,...", help="Limits: steps=20,usd=5.")
@click.option("--by", help="Who gives the value. Default: the configuration's principal.")
async def fork_command(
    terminal: Terminal, run: str, at: str, value: str | None, limits: tuple[Budget, ...], **options: str | None
) -> Exit:
    """Begin a new run that has the past of RUN up to STEP and takes that step anew, or as `--with` gives it (for
    checkpoint:N its state, for start the input). The past is not paid or done again; RUN is not touched."""
    settings = terminal.settings()
    given = None
    if value is not None:
        said = parsed(value, f"--with {value!r}", "text needs quotes, such as '\"yes\"'")
        given = Given(said, options["by"] or settings.principal)
    pinned = options["version"] == "pinned"
    async with connect(settings=settings, start=False) as client:
        forked = await client.fork(run, at, given, pinned=pinned, budget=budget_of(limits))
    lines = [
        f"fork {forked.run_id} of run {short(forked.original)} at {forked.at}",
        f"shared: {counted(forked.shared, 'finished step')}, not paid or done again",
        *_writes(forked),
        what_follows(settings, forked.run_id),
    ]
    terminal.give(forked, "\n".join(lines))
    return Exit.done


def _writes(forked: Forked) -> list[str]:
    """What the original has written since, by tool."""
    if not forked.repeats:
        return []
    names = Counter(one.rpartition(":")[0] for one in forked.repeats)
    told = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in sorted(names.items()))
    return [f"written by the original after that: {told}; the fork asks before it makes one of these writes again"]
