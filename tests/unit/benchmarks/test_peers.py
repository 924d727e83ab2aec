"""The comparison with the peers: which figure counts, what results.json keeps, what RESULTS.md says, and the pins."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.peers.table import (
    GOALS,
    PAYLOAD_BYTES,
    Figure,
    Goal,
    best_of,
    goals_table,
    merged,
    results_table,
    rows_of,
    verdict,
)

PEERS = Path(__file__).resolve().parents[3] / "benchmarks" / "peers"


def rate(name: str, value: float) -> Figure:
    return Figure(name, value, "1/s", "somehow")


def seconds(name: str, value: float) -> Figure:
    return Figure(name, value, "s", "somehow")


def test_the_best_rate_is_the_highest_and_the_best_time_the_lowest() -> None:
    best = best_of([rate("a", 5), rate("a", 7), rate("a", 6), seconds("b", 3), seconds("b", 2), seconds("b", 4)])
    assert {name: figure.value for name, figure in best.items()} == {"a": 7, "b": 2}


def test_a_merge_replaces_what_was_measured_and_keeps_the_rest_in_place() -> None:
    old = [{"name": "a", "value": 1}, {"name": "b", "value": 2}, {"name": "c", "value": 3}]
    assert merged(old, [{"name": "d", "value": 9}, {"name": "b", "value": 8}]) == [
        {"name": "a", "value": 1},
        {"name": "b", "value": 8},
        {"name": "c", "value": 3},
        {"name": "d", "value": 9},
    ]


def test_a_peers_row_says_how_many_times_as_good_retinue_is() -> None:
    figures = [
        rate("retinue_steps_1_run", 1_200),
        rate("langgraph_steps_1_run", 400),
        seconds("retinue_fanout_1000", 0.2),
        seconds("dbos_sqlite_fanout_1000", 7),
        rate("floor_raw_one_row_commits", 5_000),
    ]
    rows = {row["name"]: (row["against"], row["ratio"]) for row in rows_of(best_of(figures))}
    assert rows == {
        "retinue_steps_1_run": (None, None),
        "langgraph_steps_1_run": ("retinue_steps_1_run", 3.0),
        "retinue_fanout_1000": (None, None),
        "dbos_sqlite_fanout_1000": ("retinue_fanout_1000", 35.0),
        "floor_raw_one_row_commits": (None, None),
    }


def test_the_table_compares_with_the_best_durable_peer_and_leaves_gaps() -> None:
    figures = [
        rate("retinue_steps_1_run", 1_000),
        rate("langgraph_steps_1_run", 400),
        rate("dbos_sqlite_steps_1_run", 500),
        rate("temporal_memory_steps_1_run", 900),
    ]
    line = next(line for line in results_table(best_of(figures)).splitlines() if "sequential" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == ["1,000/s", "-", "400/s", "500/s", "-", "-", "900/s", "2.00 × DBOS, SQLite"]


def test_a_goal_is_reached_against_the_best_rival_only() -> None:
    goal = Goal("three times", "fanout_1000", 3, ("dbos_sqlite_fanout_1000", "temporal_fanout_1000"))
    figures = best_of([seconds("retinue_fanout_1000", 1), seconds("dbos_sqlite_fanout_1000", 6)])
    assert verdict(goal, figures) == ("6.00 × dbos_sqlite_fanout_1000", "reached")
    figures |= best_of([seconds("temporal_fanout_1000", 1.5)])
    assert verdict(goal, figures) == ("1.50 × temporal_fanout_1000", "missed: 2.0 times more is needed")
    assert verdict(goal, {}) == ("-", "not measured")


def test_the_goal_for_the_store_counts_bytes_of_payload() -> None:
    within = best_of([Figure("retinue_bytes_per_step", 1.4 * PAYLOAD_BYTES, "B", "")])
    beyond = best_of([Figure("retinue_bytes_per_step", 3 * PAYLOAD_BYTES, "B", "")])
    assert goals_table(within).splitlines()[-1].endswith("| reached |")
    assert goals_table(beyond).splitlines()[-1].endswith("| missed: 2.0 times more is needed |")


def test_every_goal_stands_in_the_table() -> None:
    assert [goal.text for goal in GOALS if goal.text not in goals_table({})] == []


def test_every_requirement_of_the_peers_is_pinned() -> None:
    lines = [line for line in (PEERS / "requirements.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    loose = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^;]+)?", line)]
    assert loose == []
    names = {line.split("==")[0] for line in lines}
    assert {"langgraph", "langgraph-checkpoint-sqlite", "dbos", "psycopg", "temporalio"} <= names
