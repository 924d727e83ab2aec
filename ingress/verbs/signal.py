"""`retinue signal`: an event for a run. Writes to the store; needs no runtime."""

from __future__ import annotations

import click

from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import parsed, verb, what_follows
from retinue.runs.machine import WAITING


@verb("signal")
@click.argument("run")
@click.argument("name")
@click.argument("value", metavar="[JSON]", required=False)
@click.option("--text", help="The event's value as plain text, instead of JSON.")
async def signal_command(terminal: Terminal, run: str, name: str, value: str | None, text: str | None) -> Exit:
    """Send the event NAME to RUN, with a value or none. A run that does not wait for it yet keeps it; events of one
    name are taken in the order they were sent."""
    if value is not None and text is not None:
        raise click.UsageError("give either JSON or --text TEXT")
    said = text if value is None else parsed(value, f"the event's value {value!r}", "send plain text with --text")
    settings = terminal.settings()
    async with open_controls(settings) as client:
        record = await client.get(run)
        waits = await client.awaited(record.run_id)
        await client.signal(record.run_id, name, said)
    awaits = record.status in WAITING and any(one.kind == "event" and one.name == name for one in waits)
    kept = "" if awaits else " (it does not wait for that now and keeps it)"
    facts = {"run_id": record.run_id, "event": name, "value": said, "awaited": awaits}
    terminal.give(facts, f"event {name} sent{kept}; {what_follows(settings, record.run_id)}")
    return Exit.done
