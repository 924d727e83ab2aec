"""`retinue alerts` and `retinue alerts ack`: what somebody should know. Needs no runtime."""

from __future__ import annotations

from typing import Any

import click

from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import moment
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.alerts import Alert


@verb("alerts")
@click.option("--all", "everything", is_flag=True, help="Acknowledged and cleared ones too, newest first.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="At most so many.")
async def _list(terminal: Terminal, everything: bool, limit: int) -> Exit:
    """List the alerts that stand, oldest first. `retinue alerts ack ID` says that you know of one."""
    async with open_controls(terminal.settings()) as client:
        found = await client.alerts(everything, limit)
    terminal.give(found, "\n".join(map(_text, found)) or "nothing is the matter")
    return Exit.done


@verb("ack")
@click.argument("alert", metavar="ID", type=click.IntRange(1))
@click.option("--by", help="Who says it. Default: the configuration's principal.")
async def _ack(terminal: Terminal, alert: int, by: str | None) -> Exit:
    """Say that you know of the alert ID: nobody is told of it any more. One that lasts clears with its cause."""
    async with open_controls(terminal.settings()) as client:
        known = await client.acknowledge(alert, by)
    terminal.give(known, f"alert {known.id}: acknowledged by {known.acked_by}")
    return Exit.done


def _text(alert: Alert) -> str:
    ends = [
        f"acknowledged by {alert.acked_by}" if alert.acked_at is not None else "",
        f"cleared {moment(alert.cleared_at)}" if alert.cleared_at is not None else "",
        f"not told after {alert.tries} tries" if alert.to and alert.tries else "",
    ]
    notes = "; ".join(end for end in ends if end)
    line = f"{alert.id:>5}  {moment(alert.raised_at)}  {alert.kind:<19}  {alert.message}"
    return f"{line} ({notes})" if notes else line


@click.pass_context
def _list_unless_told(context: click.Context, /, **options: Any) -> None:
    """List, unless a word follows that says something else."""
    if context.invoked_subcommand is None:
        context.invoke(_list, **options)
    elif options["project"] is not None or options["as_json"] or options["everything"]:
        raise click.UsageError(f"give options behind the word: `retinue alerts {context.invoked_subcommand} ...`")


alerts_command = click.Group(
    "alerts",
    commands={"ack": _ack},
    callback=_list_unless_told,
    params=_list.params,
    help=_list.help,
    invoke_without_command=True,
)
