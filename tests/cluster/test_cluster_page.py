"""What docs/cluster.md says of the store, done: a job gone on with from another machine, a dump restored and held."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.cluster.conftest import CommandLine
from tests.doubles.postgres import PostgresServer, programs_folder
from tests.doubles.shapes import new_run

from retinue.runs.control import RunQuery
from retinue.store.postgres.store import PostgresStore

PAGE = Path(__file__).parents[2] / "docs/cluster.md"
RESTORED = re.compile(r"<!-- restored -->\n```sql\n(.*?)```", re.DOTALL)
BATCH = ["batch", "research", "--input", "questions.jsonl", "--output", "answers.jsonl", "--limit", "3", "--local"]


@pytest.fixture
def shared(research: CommandLine, postgres: PostgresServer) -> CommandLine:
    """The research example with a database, and the store's key by reference."""
    reference = {"RETINUE_STORE": postgres.fresh(), "RETINUE_STORE_KEY": "${STORE_KEY}", "STORE_KEY": "a long text"}
    research.environ |= reference
    return research


def answers(shared: CommandLine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shared.folder / "answers.jsonl").read_text("utf-8").splitlines()]


def forget(shared: CommandLine) -> None:
    """Be another machine: no data folder, no output."""
    shutil.rmtree(shared.folder / ".retinue")
    (shared.folder / "answers.jsonl").unlink()


@pytest.mark.promise("K2", "H4")
def test_a_job_is_gone_on_with_by_a_machine_that_never_saw_it(shared: CommandLine) -> None:
    shared.run(*BATCH)
    first = answers(shared)
    before = len(shared.json("ps", "--all"))
    forget(shared)
    shared.run(*BATCH, "--resume")
    assert answers(shared) == first
    assert len(shared.json("ps", "--all")) == before


@pytest.mark.promise("K2")
async def test_a_dump_becomes_another_store_in_which_what_was_open_is_held(
    shared: CommandLine, postgres: PostgresServer
) -> None:
    shared.run(*BATCH)
    first = answers(shared)
    source, target = shared.environ["RETINUE_STORE"], postgres.fresh()
    store = PostgresStore(source)
    await store.submit([new_run("left-open")])
    incarnation = await store.incarnation()
    await store.close()

    dump = str(shared.folder / "retinue.dump")
    program(postgres, "pg_dump", "--format=custom", f"--file={dump}", f"--dbname={source}")
    program(postgres, "pg_restore", "--no-owner", f"--dbname={target}", dump)
    found = RESTORED.search(PAGE.read_text("utf-8"))
    assert found is not None
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(found[1])

    restored = PostgresStore(target)
    try:
        assert await restored.incarnation() != incarnation
        assert [record.run_id for record in await restored.list_runs(RunQuery(held=True))] == ["left-open"]
    finally:
        await restored.close()
    shared.environ["RETINUE_STORE"] = target
    forget(shared)
    shared.run(*BATCH, "--resume")
    assert answers(shared) == first, "contents open with the same key"


def program(server: PostgresServer, name: str, *words: str) -> None:
    """Run a program that comes with the server."""
    command = [str(programs_folder() / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
