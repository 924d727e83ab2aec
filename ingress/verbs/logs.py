"""`retinue logs`: what happened in a run, event by event. Reads the store; needs no runtime."""

from __future__ import annotations

import click

from retinue.ingress.controls import open_controls
from retinue.ingress.events import RunEvent
from retinue.ingress.exits import Exit
from retinue.ingress.render import moment
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb


@verb("logs")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="POSITION", help="Begin behind this position.")
async def logs_command(terminal: Terminal, run: str, follow: bool, after: int) -> Exit:
    """Show the events of RUN, one a line; with --json one object a line."""
    flowing = False
    async with open_controls(terminal.settings()) as client:
        async for event in client.events(run, follow=follow):
            if after and event.position <= after:
                continue
            if event.kind == "delta" and not terminal.as_json:
                terminal.piece(event.text)
                flowing = True
                continue
            if flowing:
                terminal.piece("\n")
                flowing = False
            terminal.give(event, _line(event))
    return Exit.done


def _line(event: RunEvent) -> str:
    return f"{moment(event.at)}  {event.position:>5}  {' '.join(event.text.split())}"
