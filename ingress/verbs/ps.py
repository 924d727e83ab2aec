"""`retinue ps`: runs, newest first. Reads the store; needs no runtime."""

from __future__ import annotations

from dataclasses import replace

import click

from retinue.host.clock import now_ns
from retinue.ingress.client import connect
from retinue.ingress.exits import Exit
from retinue.ingress.render import RUN_HEAD, columns, run_facts, run_row
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery


@verb("ps")
@click.option("--all", "everything", is_flag=True, help="Children too.")
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only runs that stand so.")
@click.option("--parent", metavar="RUN", help="Only the children of this run.")
@click.option("--tenant", help="Only runs of this tenant.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
async def ps_command(
    terminal: Terminal, everything: bool, status: str | None, parent: str | None, tenant: str | None, limit: int
) -> Exit:
    """List runs, newest first. The end of an id, as shown, names the run to every verb."""
    query = RunQuery(
        status=Status(status) if status else None,
        tenant_id=tenant,
        roots_only=not everything and parent is None,
        limit=limit,
    )
    async with connect(settings=terminal.settings(), start=False) as client:
        if parent is not None:
            query = replace(query, parent_run_id=(await client.get(parent)).run_id)
        records = await client.runs(query)
    now = now_ns()
    rows = [run_row(record, now) for record in records]
    terminal.give([run_facts(record) for record in records], columns(RUN_HEAD, rows) if rows else "no runs")
    return Exit.done
