"""`retinue cancel`: a run and everything below it. Writes to the store; needs no runtime."""

from __future__ import annotations

import click

from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import counted, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb


@verb("cancel")
@click.argument("run")
@click.option("--by", help="Who cancels it. Default: the configuration's principal.")
async def cancel_command(terminal: Terminal, run: str, by: str | None) -> Exit:
    """Cancel RUN and everything below it, children first. What is running stops at its next step."""
    async with open_controls(terminal.settings()) as client:
        record = await client.get(run)
        count = await client.cancel(record.run_id, by)
    text = f"{counted(count, 'run')} canceled"
    if not count:
        text = f"run {short(record.run_id)} had ended already: {record.status.value}"
    terminal.give({"run_id": record.run_id, "canceled": count}, text)
    return Exit.done
