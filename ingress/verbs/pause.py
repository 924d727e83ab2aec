"""`retinue pause`, `resume`: hold a run and everything below it. Writes to the store; needs no runtime."""

from __future__ import annotations

import click

from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import counted, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb, what_follows


@verb("pause")
@click.argument("run")
async def pause_command(terminal: Terminal, run: str) -> Exit:
    """Hold RUN, a job for one, and everything below it. What is in flight ends; nothing more begins until `resume`."""
    async with open_controls(terminal.settings()) as client:
        record = await client.get(run)
        count = await client.pause(record.run_id)
    name = short(record.run_id)
    what = "it" if count == 1 else "them"
    text = (
        f"{counted(count, 'run')} held; `retinue resume {name}` lets {what} go on"
        if count
        else f"run {name} was held already"
    )
    terminal.give({"run_id": record.run_id, "held": count}, text)
    return Exit.done


@verb("resume")
@click.argument("run")
async def resume_command(terminal: Terminal, run: str) -> Exit:
    """Let RUN and everything below it go on where `pause` held them."""
    settings = terminal.settings()
    async with open_controls(settings) as client:
        record = await client.get(run)
        count = await client.resume(record.run_id)
    name = short(record.run_id)
    text = (
        f"{counted(count, 'run')} let go; {what_follows(settings, record.run_id)}"
        if count
        else f"run {name} was not held"
    )
    terminal.give({"run_id": record.run_id, "let_go": count}, text)
    return Exit.done
