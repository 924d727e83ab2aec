"""Whether three nodes with PostgreSQL give what one machine with the embedded store gives, row for row.

Compares everything but ids: answers, citations, confidence, status, reason and cost. Knows how to run a batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster import projects
from benchmarks.cluster.stage import HEAD, RAY, Stage, batch_line

ACTORS = {"runs": 1, "workers": 3, "lease_seconds": projects.LEASE}
_OWN = {"run_id"}
Row = dict[str, Any]


def differences(rows: Sequence[Row], wanted: Sequence[Row]) -> list[str]:
    """What differs between two outputs: their order, a row that is missing, one too many, or its content."""
    found = []
    ids, wanted_ids = [row["id"] for row in rows], [row["id"] for row in wanted]
    if ids != wanted_ids:
        missing, more = set(wanted_ids) - set(ids), len(ids) - len(set(ids))
        found.append(
            f"{len(ids)} rows for {len(wanted_ids)}: {sorted(missing)[:3]} missing, {more} twice, or the order"
        )
    by_id = {row["id"]: _content(row) for row in rows}
    for row in wanted:
        if row["id"] in by_id and by_id[row["id"]] != _content(row):
            found.append(f"row {row['id']}: {by_id[row['id']]} for {_content(row)}"[:600])
    return found


def _content(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in _OWN}


def embedded(stage: Stage, folder: Path, target: str) -> dict[str, Any]:
    """Run the batch on the laptop, in one process on SQLite; what it reported. Leaves `answers.embedded.jsonl`."""
    projects.settle(folder, ["agents"], None)
    began = time.monotonic()
    said = stage.laptop(batch_line(target, ["--local", "--force"]), folder=str(folder), timeout=900)
    (folder / "answers.jsonl").rename(folder / "answers.embedded.jsonl")
    return {**report_in(said), "wall_s": round(time.monotonic() - began, 1)}


def on_nodes(stage: Stage, folder: Path, target: str, words: Sequence[str] = ()) -> dict[str, Any]:
    """Run the batch from the head, with a runtime on all nodes that ends with it; what it reported."""
    began = time.monotonic()
    command = f"export RAY_ADDRESS={RAY}; {batch_line(target, ['--force', *words])}"
    said = stage.on(HEAD, command, folder=str(folder), timeout=900)
    return {**report_in(said), "wall_s": round(time.monotonic() - began, 1)}


def report_in(said: str) -> dict[str, Any]:
    """The JSON object among what a batch printed."""
    return dict(json.loads(next(line for line in reversed(said.splitlines()) if line.startswith("{"))))


def compare(stage: Stage, name: str, folder: Path) -> dict[str, Any]:
    """Both runs of a project, and what differs."""
    alone = embedded(stage, folder, "research")
    projects.settle(folder, ["agents"], stage.database(name), actors=ACTORS)
    spread = on_nodes(stage, folder, "research")
    found = differences(projects.rows_of(folder / "answers.jsonl"), projects.rows_of(folder / "answers.embedded.jsonl"))
    with stage.connect(name) as connection:
        by_node = connection.execute(_BY_NODE).fetchall()
        runs = connection.execute("SELECT count(*) FROM runs").fetchone()
    return {
        "rows": spread["written"],
        "ok": spread["ok"],
        "runs": runs[0] if runs else 0,
        "embedded_s": alone["seconds"],
        "three_nodes_s": spread["seconds"],
        "differences": found,
        "leases_by_node": {f"{node} {kind}": count for node, kind, count in by_node},
    }


_BY_NODE = """
SELECT h.node, h.kind, count(*) FROM journal j
JOIN hosts h ON position(convert_to(h.host_id, 'UTF8') IN j.facts) > 0
WHERE position(convert_to('"leased"', 'UTF8') IN j.facts) > 0 GROUP BY 1, 2 ORDER BY 1, 2
"""
