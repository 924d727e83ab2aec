"""Shorter states lose nothing that is needed: evidence, obligations, ids; and their parts stay within bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.runs.agent_state import AgentState
from retinue.runs.artifacts import (
    Artifact,
    Deed,
    Evidence,
    Origin,
    Recap,
    find_evidence,
    merge,
    one_line,
    read_artifact,
)
from retinue.runs.messages import ToolCall
from retinue.runs.obligations import MOST_SETTLED, declare, render_owed, settle
from retinue.runs.packets import Observation
from retinue.runs.shortening import begin_fresh, compact, write_artifact

pytestmark = pytest.mark.promise("A10", "A6")

ORIGIN = Origin(agent="a", version="1", run_id="r", turn=3)


def looked(state: AgentState, text: str) -> AgentState:
    """One turn: a call and what came of it."""
    call = ToolCall(id=f"c{state.turn}", name="look", arguments={"n": state.turn})
    seen = Observation(id=state.next_id(), kind="tool", name="look", call_id=call.id, turn=state.turn)
    return state.called((call,)).saw(seen, text).model_copy(update={"turn": state.turn + 1})


texts = st.lists(st.text('ab \n"\\é😀', max_size=30), min_size=1, max_size=60)


@given(texts, st.lists(st.sampled_from(["compact", "reset", ""]), max_size=60), st.integers(1, 4))
def test_no_text_that_was_seen_is_lost_and_ids_go_on(seen: list[str], steps: list[str], keep: int) -> None:
    state = undisturbed = AgentState(goal="g")
    for number, text in enumerate(seen):
        state, undisturbed = looked(state, text), looked(undisturbed, text)
        step = steps[number] if number < len(steps) else ""
        if step == "compact" and (done := compact(state, keep, 400)):
            state, dropped = done
            assert (dropped.first, dropped.last) <= (state.turn, state.turn) and dropped.hashes
        elif step == "reset":
            state = begin_fresh(state, write_artifact(state, "reset", ORIGIN, 400), state.turn)
    assert state.next_id() == undisturbed.next_id()
    known = "\n".join(state.evidence())
    assert all(text in known for text in undisturbed.evidence())
    assert AgentState.model_validate(state.model_dump(mode="json")) == state


def test_pages_grow_with_the_logarithm_and_a_text_seen_again_is_not_kept_again() -> None:
    state = AgentState(goal="g")
    for number in range(900):
        state = looked(state, f"text {number}")
        state, _ = compact(state, 1, 400) or (state, None)
    pages = [page for page in state.pages if page.role == "tool"]
    assert len(pages) <= 7 * math.ceil(math.log(900, 8)) + 1
    size = sum(len(page.content) for page in pages)
    for _ in range(100):
        state = looked(state, "text 7")
        state, _ = compact(state, 1, 400) or (state, None)
    assert sum(len(page.content) for page in state.pages if page.role == "tool") <= size + 40
    assert state.recap is not None and (state.recap.first, len(state.recap.deeds) < 20) == (0, True)
    assert sum(tally.count for tally in state.recap.earlier) + len(state.recap.deeds) + len(state.observed) == 1_000


def test_too_few_turns_are_not_worth_a_compaction() -> None:
    state = AgentState(goal="g")
    for number in range(5):
        assert compact(state, 4, 400) is None
        state = looked(state, f"text {number}")
    assert compact(state, 4, 400) is None
    assert compact(looked(state, "six"), 4, 400) is not None


def test_recaps_are_merged_in_order_and_stay_within_their_room() -> None:
    deeds = tuple(Deed(turn=n, name=f"tool{n % 40}", summary="word " * 20) for n in range(100))
    passages = tuple(Evidence(observation=f"o{n}", document="d", quote="q" * 200) for n in range(50))
    first = Recap(first=0, last=49, deeds=deeds[:50], evidence=passages)
    second = Recap(first=50, last=99, deeds=deeds[50:], evidence=passages[-1:])
    both = merge(first, second, 200)
    assert both is not None and (both.first, both.last) == (0, 99)
    assert both.deeds == deeds[-len(both.deeds) :] and sum(len(deed.render()) for deed in both.deeds) <= 800
    assert sum(tally.count for tally in both.earlier) + len(both.deeds) == 100 and len(both.earlier) <= 25
    assert both.evidence == passages[-len(both.evidence) :] and len(both.evidence) <= 4
    assert merge(None, None, 200) is None
    least = merge(both, None, 0)
    assert least is not None and (len(least.deeds), len(least.evidence)) == (2, 2)


def test_passages_are_found_wherever_a_tool_puts_them() -> None:
    content = '{"hits": [{"document": "d1", "text": "one"}, {"doc_id": 2, "quote": "two"}, {"text": "nowhere"}]}'
    assert [(item.document, item.quote) for item in find_evidence("o1", content)] == [("d1", "one"), ("2", "two")]
    assert find_evidence("o1", "not json") == ()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a\n b\t c", "a b c"),
        ({"a": [1]}, '{"a":[1]}'),
        ("x" * 300, "x" * 117 + "..."),
        ("", ""),
        ("y " * 60, "y " * 59 + "y"),
    ],
)
def test_a_line_is_one_line(value: object, line: str) -> None:
    assert one_line(value) == line


def test_only_an_artifact_is_read_as_one() -> None:
    written = Artifact(kind="handoff", goal="g", origin=ORIGIN)
    assert read_artifact(written.model_dump(mode="json")) == written
    for other in ("text", None, {"goal": "g"}, {"form": "retinue.artifact/1", "goal": 7}, [1]):
        assert read_artifact(other) is None


def test_obligations_keep_what_is_open_and_the_newest_of_what_is_settled() -> None:
    owed = declare((), 1, "stays " * 90, 0)
    assert len(owed[0].text) == 200
    for number in range(2, 30):
        owed = settle(declare(owed, number, "goes", 3), [f"b{number}"], "o9")
    assert [item.id for item in owed if item.open] == ["b1"] and len(owed) == 1 + MOST_SETTLED
    assert settle(owed, ["b29"], "later")[-1].settled_by == "o9"
    assert render_owed((), ()) == "" and render_owed((), ("one",)) == "Next steps:\n- one"
