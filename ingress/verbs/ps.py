"""`retinue ps`: runs, newest first, or as trees. Reads the store; needs no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from retinue.host.clock import now_ns
from retinue.ingress.controls import Controls, open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import RUN_HEAD, columns, run_facts, run_row
from retinue.ingress.terminal import Terminal
from retinue.ingress.trees import tree_facts, tree_text
from retinue.ingress.verb import verb
from retinue.runs.contracts import RunRecord, Status
from retinue.runs.control import RunQuery


@verb("ps")
@click.option("--all", "everything", is_flag=True, help="Children too.")
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only runs that stand so.")
@click.option("--waiting", is_flag=True, help="Only runs that wait, whatever for, children too.")
@click.option("--parent", metavar="RUN", help="Only the children of this run.")
@click.option("--job", metavar="RUN", help="Only the rows of this job and what is below them.")
@click.option("--tenant", help="Only runs of this tenant.")
@click.option("--tree", is_flag=True, help="Each with what is below it.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
async def ps_command(terminal: Terminal, tree: bool, **wanted: Any) -> Exit:
    """List runs, newest first. The end of an id, as shown, names the run to every verb."""
    async with open_controls(terminal.settings()) as client:
        records = await client.runs(await _query(client, wanted))
        if tree:
            await _give_trees(terminal, client, records)
            return Exit.done
    now = now_ns()
    rows = [run_row(record, now) for record in records]
    terminal.give([run_facts(record) for record in records], columns(RUN_HEAD, rows) if rows else _NONE)
    return Exit.done


_NONE = "no runs"


async def _query(client: Controls, wanted: dict[str, Any]) -> RunQuery:
    """The options as a query; ids may be given by their ends. UnknownName."""
    deep = any(wanted[name] for name in ("everything", "waiting", "parent", "job"))
    query = RunQuery(
        status=Status(wanted["status"]) if wanted["status"] else None,
        tenant_id=wanted["tenant"],
        roots_only=not deep,
        waiting=wanted["waiting"],
        limit=wanted["limit"],
    )
    if wanted["parent"] is not None:
        query = replace(query, parent_run_id=(await client.get(wanted["parent"])).run_id)
    if wanted["job"] is not None:
        query = replace(query, job_id=(await client.get(wanted["job"])).run_id)
    return query


async def _give_trees(terminal: Terminal, client: Controls, records: Sequence[RunRecord]) -> None:
    """The trees of the runs; one that stands in the tree of another is not shown again."""
    now = now_ns()
    inside: set[str] = set()
    trees = []
    for record in reversed(records):
        if record.run_id not in inside:
            tree = await client.tree(record.run_id)
            inside |= {one.run_id for one in tree.records}
            trees.append(tree)
    trees.reverse()
    terminal.give([tree_facts(one) for one in trees], "\n".join(tree_text(one, now) for one in trees) or _NONE)
