"""The research example in one process on either store: the same commands, the same answers, the same traces."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.places import Places
from tests.e2e.conftest import ROOT, Project, environment

QUESTION = "Since which version does Opera Android support the CSS selector `:modal`?"
FOLLOWS = '"agent":"note_sources"'
ROWS = 4
TIMED = re.compile(r"TIMESTAMP.*")
OWN = re.compile(r"(?:.*_)?(?:id|ids|key|scope|ns|ms|us|hash|ref|micros|wake_at|seq|ordinal|pid|node|path|epoch)")
"""Names of columns that another run of the same work fills with other values: ids, places, times, numbers of leases."""
INSIDE = re.compile(r'"(?:[a-z_.]*_)?(?:id|key|at|ns|ms|us|fingerprint|path|latency|micros)": ?(?:"[^"]*"|[0-9.]+)')


def research(folder: Path, store: str | None) -> Project:
    """The example with a data folder of its own, and a few of its questions."""
    shutil.copytree(
        ROOT / "examples" / "research",
        folder,
        ignore=shutil.ignore_patterns(".retinue", "out", "__pycache__"),
    )
    made = Project(folder, environment() | ({"RETINUE_STORE": store} if store else {}))
    questions = (folder / "questions.jsonl").read_text("utf-8").splitlines()[:ROWS]
    made.write("few.jsonl", "\n".join(questions) + "\n")
    return made


def worked(project: Project) -> dict[str, Any]:
    """A run and a small batch with `--local`: what they said and wrote."""
    run = project.run("run", "researcher", QUESTION, "--local", "--json", code=0).json
    batch = ("batch", "research", "--input", "few.jsonl", "--output", "out.jsonl", "--local", "--json")
    job = project.run(*batch, code=0).json
    again = project.run(*batch, "--resume", code=0).json
    assert again["job_id"] == job["job_id"], "a finished job is found again, not run again"
    counted = {name: job[name] for name in ("status", "rows", "ok", "failed", "rejected", "written", "dead_letters")}
    rows = [{name: value for name, value in row.items() if name != "run_id"} for row in project.rows("out.jsonl")]
    return {"run": run["output"], "job": counted, "rows": rows}


def told(project: Project) -> dict[str, list[str]]:
    """Every row of the trace tables by `retinue sql`, without what is each run's own, in a fixed order.

    How often a run parked and was leased again depends on who was quicker, it or its children; the last follow-ups of
    a command are left to the next.
    """
    columns = project.run(
        "sql",
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        " AND table_name IN (SELECT table_name FROM duckdb_tables())"
        " AND table_name NOT IN ('ingest', 'leases', 'parks')",
        "--json",
        code=0,
    ).json
    kept: dict[str, list[str]] = {}
    for column in columns:
        if not TIMED.fullmatch(column["data_type"]) and not OWN.fullmatch(column["column_name"]):
            kept.setdefault(column["table_name"], []).append(column["column_name"])
    parts = [
        f"SELECT '{table}' AS name, to_json(each)::VARCHAR AS line FROM (SELECT {_listed(names)} FROM {table}) AS each"
        for table, names in sorted(kept.items())
    ]
    found: dict[str, list[str]] = {}
    for row in project.run("sql", " UNION ALL ".join(parts), "--json", code=0).json:
        if FOLLOWS not in row["line"]:
            found.setdefault(row["name"], []).append(INSIDE.sub('""', row["line"]))
    return {name: sorted(lines) for name, lines in found.items()}


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


@pytest.mark.promise("C3", "I4")
@pytest.mark.timeout(240)
def test_the_example_gives_the_same_rows_and_the_same_traces_on_postgresql(tmp_path: Path, places: Places) -> None:
    """Both work in a folder of the same name: where its input lies is part of a job."""
    folder = tmp_path / "research"
    embedded = research(folder, None)
    did, traces = worked(embedded), told(embedded)
    assert len(did["rows"]) == ROWS
    assert {"run_requests", "run_results", "spans", "model_calls", "tool_calls", "decisions"} <= set(traces)
    folder.rename(tmp_path / "embedded")
    with places.new("postgres") as place:
        shared = research(folder, place.url)
        assert json.dumps(worked(shared), indent=1) == json.dumps(did, indent=1)
        found = told(shared)
        assert {name: len(lines) for name, lines in found.items()} == {name: len(traces[name]) for name in traces}
        pairs = {name: zip(lines, traces[name], strict=True) for name, lines in found.items()}
        differ = {
            name: next(((here, there) for here, there in each if here != there), None) for name, each in pairs.items()
        }
        assert [pair for pair in differ.values() if pair] == []
    assert not (folder / ".retinue" / "store.db").exists()
