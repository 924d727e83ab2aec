"""`retinue wait`: the answer of a run that was accepted before, carried on when nothing else hosts it."""

from __future__ import annotations

import click

from retinue.ingress.connecting import connect
from retinue.ingress.exits import ENDED, Exit
from retinue.ingress.following import follow, follow_rows, show_result
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.batch import JOB


@verb("wait")
@click.argument("run")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Wait at most S seconds.")
@click.option("--stream", is_flag=True, help="Show text and events as they come.")
@click.option("--local", is_flag=True, help="Carry it on in this process, without Ray.")
async def wait_command(terminal: Terminal, run: str, timeout: float | None, stream: bool, local: bool) -> Exit:
    """Wait for RUN and show its answer, as `run` does. Where no runtime lives, one is started for it. A job that has
    ended and whose rows were redriven is waited for until they have ended."""
    settings = terminal.settings()
    async with connect(settings=settings, start=False) as client:
        record = await client.get(run)
        rows = record.target == JOB and bool((await client.progress(record.run_id)).pending)
        if record.status.terminal and not rows:
            took = record.finished_at - record.started_at if record.finished_at and record.started_at else None
            branch = await client.wait(record.run_id)
            show_result(terminal, branch, took)
            return ENDED[branch.status]
    async with connect(settings=settings, local=local) as client:
        if record.status.terminal:
            return await follow_rows(terminal, client, record.run_id, timeout)
        return await follow(terminal, client, record.run_id, stream=stream, timeout=timeout)
