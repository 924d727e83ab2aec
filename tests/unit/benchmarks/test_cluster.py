"""The measurement of three nodes: what counts as a difference, when a result is sound, and how the endpoint answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.cluster.equality import differences, report_in
from benchmarks.cluster.run import sound, table
from benchmarks.cluster.slow_model import planner
from tests.doubles.model_server import Received


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "answer": f"answer {number}", "citations": [], "status": "completed"} | more


ROWS = [row(number, run_id=f"here-{number}") for number in range(3)]
WANTED = [row(number, run_id=f"there-{number}") for number in range(3)]


def test_outputs_that_differ_in_ids_of_runs_alone_are_equal() -> None:
    assert differences(ROWS, WANTED) == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:2], "2 rows for 3: ['2'] missing, 0 twice"),
        ([*ROWS, ROWS[0]], "4 rows for 3: [] missing, 1 twice"),
        ([ROWS[1], ROWS[0], ROWS[2]], "or the order"),
        ([*ROWS[:2], row(2, answer="another")], "row 2: "),
        ([*ROWS[:2], row(2, citations=[{"document": "d"}])], "row 2: "),
        ([*ROWS[:2], row(2, status="failed")], "row 2: "),
    ],
)
def test_what_is_missing_double_moved_or_other_is_a_difference(rows: list[dict[str, Any]], said: str) -> None:
    [found] = differences(rows, WANTED)
    assert said in found


def test_a_report_is_found_among_what_was_printed() -> None:
    assert report_in('hello\n{"ok": 1}\n{"ok": 2}\n\n') == {"ok": 2}


def struck(**more: Any) -> dict[str, Any]:
    figures = {"rows": 3, "runs": 9, "entries": 50, "effects": {}, "done_again": {}, "refused_writes": {}, "exits": [0]}
    return {"strikes": {"cut": {"held": 3}}, "findings": [], "differences": [], **figures, **more}


def test_a_result_is_sound_when_nothing_differs_nothing_failed_and_nothing_was_found() -> None:
    same = {"rows": 3, "runs": 9, "embedded_s": 1.0, "three_nodes_s": 2.0, "differences": []}
    assert sound({"equality": {"xquad": same}, "fire": struck()})
    assert not sound({"equality": {"xquad": same | {"differences": ["row 1"]}}})
    assert not sound({"fire": struck(differences=["row 1"])})
    assert not sound({"fire": struck(findings=["effects_happen_once: ..."])})
    assert not sound({"fire": struck(strikes={"cut": {"failed": "not within 120 s"}})})
    assert "xquad: 3 rows, 9 runs: equal row for row" in table({"equality": {"xquad": same}, "fire": struck()})


def test_the_endpoint_lets_a_run_ask_so_many_times_and_answers_late() -> None:
    plan = planner(2, 0.5)
    asked = {"messages": [{"role": "user", "content": "?"}]}
    first = plan(Received("/v1/chat/completions", {}, asked))
    assert [name for name, _ in first.tool_calls] == ["look"] and first.delay == 0.5
    assert json.loads(first.tool_calls[0][1]) == {"what": "turn 0"}
    asked["messages"].append({"role": "tool", "content": "turn 0"})
    last = plan(Received("/v1/chat/completions", {}, asked))
    assert (last.text, last.tool_calls, last.fault) == ("seen 1 times", (), "slow")
