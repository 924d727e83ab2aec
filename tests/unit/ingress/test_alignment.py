"""Two runs side by side: what is the same, what changed and in what, what only one of them has."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.shapes import START

from retinue.ingress.alignment import (
    SHOWN_LINES,
    SHOWN_WIDTH,
    Comparison,
    Pair,
    compare,
    is_changed,
    is_same,
    lines_between,
    story_of,
)
from retinue.runs.contracts import ErrorInfo, RunRecord, Status, StopReason, Usage
from retinue.runs.journal import AnyEntry, Attempt, EffectKind, Finished, Frame, Intent, Outcome

pytestmark = pytest.mark.promise("I7")

SECOND = 1_000_000_000


def record(run_id: str, **changes: Any) -> RunRecord:
    given = {
        "run_id": run_id,
        "parent_run_id": None,
        "root_run_id": run_id,
        "tenant_id": "acme",
        "target": "work",
        "kind": "workflow",
        "pool": "runs",
        "depth": 0,
        "status": Status.completed,
        "reason": StopReason.success,
        "epoch": 1,
        "position": 9,
        "created_at": START,
    }
    return RunRecord(**given | changes)


def step(key: str, value: Any = None, effect: EffectKind = "call", **changes: Any) -> list[AnyEntry]:
    """The two entries of a step that took a second; options are `digest`, `took` and the outcome's fields."""
    name = changes.pop("name", key.rpartition("/")[2].partition("#")[0])
    took, digest = changes.pop("took", 1.0), changes.pop("digest", "d")
    begun = Intent(at=START, key=key, effect=effect, name=name, digest=digest, content={"of": digest})
    at = START + int(took * SECOND)
    return [begun, Outcome(at=at, key=key, effect=effect, name=name, activation=1, content=value, **changes)]


def laid(one: list[AnyEntry], other: list[AnyEntry]) -> Comparison:
    stories = [
        story_of(Frame(place, "run", "acme", place, 1, (entry,)) for place, entry in enumerate(entries, start=1))
        for entries in (one, other)
    ]
    return compare((record("run-1"), stories[0]), (record("run-2"), stories[1]))


def keys(pair: Pair) -> tuple[str | None, str | None]:
    return pair.one.key if pair.one else None, pair.other.key if pair.other else None


def test_a_journal_beside_itself_is_the_same_throughout() -> None:
    journal = step("0/a#0", 1) + step("0/b#0", {"x": [1]}) + step("0/c#0", effect="model", usage=Usage(micros=5))
    found = laid(journal, journal)
    assert all(map(is_same, found.pairs))
    assert found.facts == {"same": 3, "changed": 0, "only_one": 0, "only_other": 0, "tokens": 0, "micros": 0}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"digest": "e"}, ("arguments",)),
        ({"value": 2}, ("value",)),
        ({"usage": Usage(micros=7)}, ("usage",)),
        ({"took": 2.5}, ("duration",)),
        ({"took": 1.9}, ()),
        ({"effect": "event", "took": 900.0}, ()),
        (
            {"result": "error", "error": ErrorInfo(reason="tool_failure", code="gone", message="no printer")},
            ("result", "error"),
        ),
    ],
)
def test_a_change_is_named(changes: dict[str, Any], what: tuple[str, ...]) -> None:
    effect = changes.get("effect", "call")
    [pair] = laid(step("0/a#0", 1, effect), step("0/a#0", **{"value": 1, **changes})).pairs
    assert pair.changed == what


def test_a_changed_argument_and_value_are_shown_as_lines() -> None:
    [pair] = laid(step("0/a#0", ["x", "y"]), step("0/a#0", ["x", "z"], digest="e")).pairs
    assert pair.arguments == (" {", '-  "of": "d"', '+  "of": "e"', " }")
    assert pair.value == (" [", '   "x",', '-  "y"', '+  "z"', " ]")


def test_what_only_one_run_has_stands_where_it_happened() -> None:
    found = laid(step("0/a#0") + step("0/gone#0") + step("0/b#0"), step("0/a#0") + step("0/new#0") + step("0/b#0"))
    assert [keys(pair) for pair in found.pairs] == [
        ("0/a#0", "0/a#0"),
        ("0/gone#0", None),
        (None, "0/new#0"),
        ("0/b#0", "0/b#0"),
    ]


def test_where_keys_differ_steps_are_matched_by_name_and_order() -> None:
    one = step("0/1/fetch#0", "a") + step("0/1/fetch#1", "b")
    other = step("0/2/fetch#0", "a") + step("0/2/fetch#1", "c")
    found = laid(one, other)
    assert [keys(pair) for pair in found.pairs] == [("0/1/fetch#0", "0/2/fetch#0"), ("0/1/fetch#1", "0/2/fetch#1")]
    assert list(map(is_changed, found.pairs)) == [False, True]


def test_calls_of_different_models_are_matched_and_calls_of_different_tools_are_not() -> None:
    found = laid(
        step("0/small#0", effect="model") + step("0/read#0"), step("0/large#0", effect="model") + step("0/write#0")
    )
    assert [keys(pair) for pair in found.pairs] == [
        ("0/small#0", "0/large#0"),
        ("0/read#0", None),
        (None, "0/write#0"),
    ]
    assert found.pairs[0].changed == ("name",)


def test_an_open_step_a_failed_try_and_a_step_without_intent_are_read() -> None:
    begun, ended = step("0/a#0", 1)
    failed = Attempt(
        at=START, key="0/a#0", number=2, error=ErrorInfo(reason="r", code="busy", message="m"), not_before=START
    )
    [pair] = laid([begun], [begun, failed, ended]).pairs
    assert pair.one is not None and pair.one.result is None
    assert pair.changed == ("result", "value", "tries")
    gate = Outcome(at=START, key="0/gate#0", effect="gate", name="gate", activation=1)
    assert all(map(is_same, laid([gate], [gate]).pairs))


def test_children_are_the_same_whatever_their_ids_and_cost() -> None:
    def branch(run_id: str, value: str) -> dict[str, Any]:
        return {
            "index": 0,
            "run_id": run_id,
            "status": "completed",
            "reason": "success",
            "value": value,
            "usage": run_id,
        }

    same = laid(step("0/p#0", [branch("a", "v")], "children"), step("0/p#0", [branch("b", "v")], "children"))
    other = laid(step("0/p#0", [branch("a", "v")], "children"), step("0/p#0", [branch("b", "w")], "children"))
    assert [pair.changed for pair in (*same.pairs, *other.pairs)] == [(), ("value",)]


def test_ends_carry_output_and_error() -> None:
    end = Finished(at=START, status=Status.completed, reason=StopReason.success, content="red")
    bad = Finished(
        at=START,
        status=Status.failed,
        reason=StopReason.tool_failure,
        error=ErrorInfo(reason="tool_failure", code="c", message="no printer"),
    )
    found = laid([end], [bad])
    assert found.output == ("-red", "+null")
    assert (found.one.error, found.other.error) == (None, "no printer")


def test_long_differences_are_cut_and_say_so() -> None:
    found = lines_between("\n".join(f"{place} {'x' * 300}" for place in range(100)), "short")
    assert len(found) == SHOWN_LINES + 1
    assert max(map(len, found)) == SHOWN_WIDTH
    assert found[-1] == "… 61 more lines"
