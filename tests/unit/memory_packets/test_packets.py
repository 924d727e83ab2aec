"""Context packets: what is shown, what is left out, and that both can be explained."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.memory.packets import OLD_RESULT_TOKENS, PacketBuilder, estimate_tokens
from retinue.runs.messages import Message, ToolCall, ToolSpec
from retinue.runs.packets import ContextPacket, ContextRequest, Observation, StateText

SEARCH = ToolSpec(name="search", description="Find passages.", input_schema={"type": "object"})
STOP = ToolSpec(name="stop", description="Stop.", input_schema={"type": "object"}, control=True)


def request_of(**changes: Any) -> ContextRequest:
    given: dict[str, Any] = {
        "instructions": "Be exact.",
        "instructions_source": "instructions:research/v3",
        "goal": "Answer the question.",
        "input": {"question": "since when?", "tags": ["a", "b"]},
    }
    return ContextRequest(**{**given, **changes})


def asks(*ids: str, text: str = "") -> Message:
    calls = tuple(ToolCall(id=each, name="search", arguments={"query": each}) for each in ids)
    return Message(role="assistant", content=text, tool_calls=calls)


def replies(call_id: str, text: str) -> Message:
    return Message(role="tool", tool_call_id=call_id, name="search", content=text)


def history(turns: int, size: int) -> tuple[Message, ...]:
    return tuple(m for n in range(turns) for m in (asks(f"c{n}"), replies(f"c{n}", f"r{n} " + "word " * size)))


def build(**changes: Any) -> ContextPacket:
    return PacketBuilder().build(request_of(**changes))


@pytest.mark.promise("G1")
def test_instructions_goal_and_input_open_the_packet() -> None:
    packet = build()
    assert [(message.role, message.content) for message in packet.messages] == [
        ("system", "Be exact."),
        ("user", 'Answer the question.\n\n{\n  "question": "since when?",\n  "tags": ["a", "b"]\n}'),
    ]
    assert [(item.source, item.kind, item.tokens > 0) for item in packet.items] == [
        ("instructions:research/v3", "instructions", True),
        ("goal", "goal", True),
        ("input", "input", True),
    ]
    assert packet.omitted == ()


@pytest.mark.parametrize(
    ("goal", "value", "content"),
    [
        ("Answer.", "since when?", "Answer.\n\nsince when?"),
        ("since when?", "since when?", "since when?"),
        ("Answer.", None, "Answer."),
        ("", "x", "x"),
        ("Answer.", [1, "é"], 'Answer.\n\n[1, "é"]'),
        ("Answer.", {}, "Answer.\n\n{}"),
    ],
)
def test_an_input_is_shown_once_and_compactly(goal: str, value: Any, content: str) -> None:
    assert build(goal=goal, input=value).messages[1].content == content


def test_what_remains_is_told_when_it_is_little() -> None:
    assert build(remaining={"steps": 9, "hops": 40, "tokens": 90_000}).messages[0].content == "Be exact."
    told = build(remaining={"steps": 1, "hops": 2, "tokens": 90_000, "micros": 2_500}).messages[0].content
    assert told == "Be exact.\n\nThis run has left: 2 tool calls, 0.0025 USD, 1 turn. Finish within that."


def test_a_conversation_that_fits_is_shown_as_it_is() -> None:
    turns = (asks("a", "b"), replies("a", "1"), replies("b", "2"), Message(role="user", content="and?"))
    packet = build(turns=turns, observations=(Observation(id="o1", kind="tool", call_id="b", summary="2"),))
    assert packet.messages[2:] == turns
    assert [(item.source, item.kind) for item in packet.items[3:]] == [
        ("turn:0", "message"),
        ("turn:1", "message"),
        ("observation:o1", "observation"),
        ("turn:3", "message"),
    ]


@pytest.mark.promise("G1")
def test_older_results_are_shortened_before_anything_is_left_out() -> None:
    packet = build(turns=history(4, 400), limit=1_200)
    texts = [message.content for message in packet.messages if message.role == "tool"]
    assert len(texts) == 4 and packet.tokens <= 1_200
    assert texts[3] == history(4, 400)[7].content
    assert texts[0].startswith("r0 word") and texts[0].endswith("word ") and "shortened from 501 tokens" in texts[0]
    item = packet.items[4]
    assert item.included and item.tokens <= OLD_RESULT_TOKENS
    assert item.reason == f"shortened from 505 to {item.tokens} tokens"


@pytest.mark.promise("G1")
def test_the_oldest_exchanges_are_left_out_when_shortening_is_not_enough() -> None:
    packet = build(turns=history(10, 400), limit=1_200)
    assert packet.tokens <= 1_200
    shown = [message.tool_call_id for message in packet.messages if message.role == "tool"]
    assert shown and shown == [f"c{n}" for n in range(10 - len(shown), 10)]
    assert {item.reason for item in packet.omitted} == {"too old for the limit"}
    assert len(packet.omitted) == 2 * (10 - len(shown))
    assert f"({len(packet.omitted)} earlier messages of this run are not shown.)" in packet.messages[0].content


def test_the_newest_exchange_is_squeezed_and_its_small_results_stay_whole() -> None:
    turns = (*history(2, 100), asks("x", "y"), replies("x", "short"), replies("y", "long " * 4_000))
    packet = build(turns=turns, limit=600)
    assert packet.tokens <= 600
    assert [message.tool_call_id for message in packet.messages[2:]] == [None, "x", "y"]
    assert packet.messages[3].content == "short"
    assert "shortened from 5000 tokens" in packet.messages[4].content
    assert packet.tokens > 500


def test_a_limit_below_everything_keeps_what_must_be_shown() -> None:
    packet = build(turns=history(3, 400), limit=1)
    assert [message.role for message in packet.messages] == ["system", "user", "assistant", "tool"]
    assert packet.tokens < 130


def test_results_join_the_message_that_asked_and_strays_are_left_out() -> None:
    turns = (
        replies("stray", "?"),
        asks("a", "b"),
        replies("b", "2"),
        Message(role="user", content="note"),
        replies("a", "1"),
    )
    packet = build(turns=turns)
    assert [message.tool_call_id or message.role for message in packet.messages[2:]] == ["assistant", "b", "a", "user"]
    assert [(item.source, item.reason) for item in packet.omitted] == [
        ("turn:0", "answers no call of the conversation")
    ]


def test_all_tools_are_disclosed_unless_they_take_too_much() -> None:
    tools = (*(SEARCH.model_copy(update={"name": f"t{n}"}) for n in range(20)), SEARCH, STOP)
    assert build(tools=tools).tools == tools
    packet = build(tools=tools, turns=(asks("a"), replies("a", "1")), limit=200)
    names = [tool.name for tool in packet.tools]
    assert {"search", "stop", "t0"} <= set(names) and len(names) < 10
    assert names == [tool.name for tool in tools if tool.name in names]
    assert {item.reason for item in packet.omitted} == {"tools may take 40% of the limit of 200 tokens"}
    assert len(packet.omitted) + len(names) == len(tools)


def test_observations_without_a_message_are_told_newest_first() -> None:
    observations = (
        Observation(id="o1", kind="model", summary="I will search"),
        Observation(id="o2", kind="tool", name="search", summary="nothing found", result="error"),
        Observation(id="o3", kind="human", data={"answer": "yes"}),
    )
    packet = build(observations=observations)
    assert packet.messages[1].content.endswith(
        '\n\nObserved so far:\n- tool search (error): nothing found\n- human: {"answer": "yes"}'
    )
    assert [(item.source, item.reason) for item in packet.omitted] == [
        ("observation:o1", "what the model said is part of the conversation")
    ]
    tight = build(observations=observations, limit=1)
    assert tight.messages[1].content.endswith('Observed so far:\n- human: {"answer": "yes"}')
    assert ("observation:o2", "too old for the limit") in [(item.source, item.reason) for item in tight.omitted]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("éé", 1), ("\ud800", 1)])
def test_tokens_are_a_quarter_of_the_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


texts = st.text("ab é😀", max_size=6).map(lambda text: text * 60)
ids = st.sampled_from(["a", "b", "c"])
turns = st.lists(
    st.builds(lambda text: Message(role="user", content=text), texts)
    | st.builds(lambda calls, text: asks(*calls, text=text), st.lists(ids, max_size=2, unique=True), texts)
    | st.builds(replies, ids, texts),
    max_size=12,
).map(tuple)


@given(turns, st.integers(1, 900), st.booleans())
def test_a_packet_accounts_for_every_candidate_and_orphans_none(
    conversation: tuple[Message, ...], limit: int, with_tools: bool
) -> None:
    request = request_of(turns=conversation, limit=limit, tools=(SEARCH, STOP) if with_tools else ())
    builder = PacketBuilder()
    packet = builder.build(request)
    assert packet == builder.build(request) == PacketBuilder().build(request)
    assert len(packet.items) == 3 + len(request.tools) + len(conversation)
    assert all(item.included or item.reason for item in packet.items)
    open_calls: set[str] = set()
    for message in packet.messages:
        if message.role == "tool":
            assert message.tool_call_id in open_calls
        else:
            open_calls = {call.id for call in message.tool_calls}
    shown = sum(1 for item in packet.items if item.kind in ("message", "observation") and item.included)
    assert len(packet.messages) == 2 + shown
    whole = PacketBuilder().build(request.model_copy(update={"limit": 100_000}))
    if whole.tokens <= limit and not with_tools:
        assert packet.messages == whole.messages
    least = PacketBuilder().build(request.model_copy(update={"limit": 1}))
    disclosed = sum(item.tokens for item in packet.items if item.kind == "tool" and item.included)
    assert packet.tokens <= max(limit, least.tokens + disclosed)


RECAP = StateText(source="recap:1", text="did this " * 400)
OWED = StateText(source="obligations", text="Still owed:\n- b1: say it", firm=True)


@pytest.mark.promise("A10", "G1")
def test_the_state_stands_before_the_conversation_and_what_is_firm_of_it_whole() -> None:
    packet = build(state=(RECAP, OWED), turns=history(3, 400), limit=1_200)
    assert packet.tokens <= 1_200 < packet.wanted
    assert [message.role for message in packet.messages[:4]] == ["system", "user", "user", "assistant"]
    assert packet.messages[2].content.endswith("\n\nStill owed:\n- b1: say it")
    [recap, owed] = [item for item in packet.items if item.kind == "state"]
    assert recap.included and recap.reason == f"shortened from 900 to {recap.tokens} tokens"
    assert (owed.source, owed.included, owed.reason) == ("obligations", True, "")
    tiny = build(state=(RECAP, OWED), turns=history(3, 400), limit=1)
    assert "- b1: say it" in tiny.messages[2].content


def test_what_a_packet_wanted_is_what_it_takes_when_the_limit_does_not_matter() -> None:
    given: dict[str, Any] = {
        "state": (RECAP, OWED),
        "turns": history(5, 300),
        "observations": (Observation(id="o9", kind="human", summary="yes"),),
    }
    whole, cut = build(**given, limit=100_000), build(**given, limit=900)
    assert abs(whole.tokens - whole.wanted) <= 8 and abs(cut.wanted - whole.wanted) <= 8 and cut.tokens <= 900
