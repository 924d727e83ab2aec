"""The benchmark of decisions compares like with like: gate and floor answer the same, and both answers occur."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("decisions")


@pytest.mark.parametrize("pinned", [False, True])
def test_gate_and_floor_say_the_same_and_not_always(decisions: ModuleType, pinned: bool) -> None:
    made = decisions.rules(50, pinned)
    asked = decisions.requests(160, 1_000)
    decisions.check(made, asked)
    made.forbids.clear()
    with pytest.raises(SystemExit, match="do not agree"):
        decisions.check(made, asked)


def test_new_requests_are_new_and_known_ones_shared(decisions: ModuleType) -> None:
    made = decisions.rules(50, False)
    assert all(made.gate.decide(request).micros for request in decisions.requests(20, 0))
    assert not any(made.gate.decide(request).micros for request in decisions.requests(20, 0))


def test_every_figure_stands_beside_its_floor(decisions: ModuleType) -> None:
    found = decisions.lines("policy_50_general_new", [(2.0, 9.0)], {"policy_50_general_floor": [(4.0, 3.0)]})
    assert [(row["name"], row["ratio"], row["unit"]) for row in found] == [
        ("policy_50_general_new", 0.5, "1/s"),
        ("policy_50_general_new_p99", 3.0, "µs"),
    ]
