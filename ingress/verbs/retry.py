"""`retinue retry`: a failed run goes on, with what it has. Writes to the store; needs no runtime."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click

from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import counted, short
from retinue.ingress.steering import Retaken, Retaking
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import Duration, Limits, budget_of, verb, what_follows
from retinue.runs.contracts import Budget


@verb("retry")
@click.argument("run")
@click.option("--budget", "limits", type=Limits(), multiple=True, metavar="NAME=N,...", help="Limits: steps=20,usd=5.")
@click.option("--deadline", type=Duration(), metavar="SPAN", help="It must end within: 90s, 10m, 2h. Default: none.")
@click.option("--migrate", is_flag=True, help="Go on with the code of now, from the newest checkpoint.")
async def retry_command(
    terminal: Terminal, run: str, limits: tuple[Budget, ...], deadline: float | None, migrate: bool
) -> Exit:
    """Let the failed RUN go on: finished steps are kept, the one that failed and what followed is taken anew, and so
    are the runs below that made it fail. Ids and idempotency keys stay."""
    settings = terminal.settings()
    budget = budget_of(limits)
    if migrate:
        # Only the project knows its versions, and loading it costs a second.
        connect = importlib.import_module("retinue.ingress.connecting").connect
        async with connect(settings=settings, start=False) as client:
            taken: Retaking = await client.migrate(run, budget=budget, deadline=deadline)
    else:
        async with open_controls(settings) as controls:
            taken = await controls.retry(run, budget=budget, deadline=deadline)
    lines = [*_lines(taken, migrate), what_follows(settings, taken.run_id)]
    terminal.give(taken, "\n".join(lines))
    return Exit.done


def _lines(taken: Retaking, migrate: bool) -> Iterator[str]:
    count = len(taken.queued)
    yield f"{counted(count, 'run')} queued again; finished steps are kept"
    hidden = count - len(taken.runs)
    if hidden:
        yield f"  … {hidden:,} more below it"
    for one in taken.runs:
        row = f"  {one.input_id}" if one.input_id is not None else ""
        yield f"  {short(one.run_id)}  {one.target}{row}: {_anew(one, migrate)}"


def _anew(one: Retaken, migrate: bool) -> str:
    if migrate:
        return "begins at its newest checkpoint with the code of now; what it asks for as before is not done again"
    if one.again is None:
        return "no step was the cause: its code runs again on what it has"
    return f"takes step {one.again} anew"
