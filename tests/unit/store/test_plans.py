"""What grows with the number of queued runs is searched by an index, not walked through."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.store.opening import connect
from retinue.store.sqlite import SqliteStore
from retinue.store.statements import sql


async def plan(folder: Path, name: str) -> list[str]:
    store = SqliteStore(folder)
    await store.close()
    connection = connect(folder / "store.db")
    try:
        values = {"pool": "runs", "most": 1, "tenant": "", "queue": ""}
        marks = sql(name).count("?")
        found = connection.execute(f"EXPLAIN QUERY PLAN {sql(name)}", (1,) * marks if marks else values)
        return [str(row[-1]) for row in found]
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["tree", "rest_of_group"])
async def test_a_cancel_or_a_hold_reads_only_the_runs_of_its_tree(tmp_path: Path, name: str) -> None:
    assert not [step for step in await plan(tmp_path, name) if step.startswith("SCAN runs")]


async def test_the_next_line_is_found_without_walking_through_a_tenants_runs(tmp_path: Path) -> None:
    steps = await plan(tmp_path, "waiting_lines")
    assert [step for step in steps if "tenant_id=? AND queue>?" in step]


@pytest.mark.promise("B5")
async def test_the_queues_are_found_by_index_and_in_its_order(tmp_path: Path) -> None:
    steps = await plan(tmp_path, "queues")
    touched = [step for step in steps if " runs " in step]
    assert touched and all("USING" in step and "INDEX runs_queued" in step for step in touched), steps
    assert not [step for step in steps if "TEMP B-TREE" in step]
