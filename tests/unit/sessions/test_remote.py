"""Remote tools: a server's tool under this project's contract looks like any other from inside a run."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from pydantic_core import to_json
from tests.unit.sessions.calling import caller, gateway_of
from tests.unit.sessions.serving import Answers, definition, pinned, remotes, text

from retinue.runs.capabilities import CallResult
from retinue.runs.definitions import agent
from retinue.runs.errors import ConfigError, PermanentError, TransientError
from retinue.runs.registry import Registry
from retinue.runs.sessions import Pause, Question
from retinue.sessions.connections import RemoteResult
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.pins import Lock
from retinue.sessions.remote import Alone
from retinue.sessions.remotes import RemoteTools
from retinue.sessions.servers import Server

FIND = definition("find", {"query": {"type": "string"}}, annotations={"readOnlyHint": True})
PUT = definition("put", {"value": {"type": "integer"}, "request_id": {"type": "string"}})
READS: Any = {"side_effect": "read"}


def gateway(found: RemoteTools) -> CapabilityGateway:
    return gateway_of(*found.tools.values())


async def called(found: RemoteTools, name: str, **arguments: Any) -> CallResult:
    door = gateway(found)
    result = await door.execute(door.prepare(name, arguments), caller())
    assert isinstance(result, CallResult)
    return result


@pytest.mark.promise("D1")
def test_a_tool_is_a_careful_write_until_the_project_says_otherwise() -> None:
    found = remotes(Answers(), FIND, PUT, find=READS)
    find, put = found.tools["desk__find"].capability, found.tools["desk__put"].capability
    assert (find.side_effect, put.side_effect, put.idempotency) == ("read", "write", "at_most_once")
    assert (find.source, find.server, find.timeout) == ("mcp:desk", "desk", 60.0)
    assert find.description == "Does find."
    assert find.version == pinned(Server(name="desk", command=("desk",)), FIND).tools["find"].sha256[:12]
    assert find.spec.input_schema == FIND.input_schema


async def test_a_call_goes_to_the_server_with_what_was_pinned_of_it() -> None:
    wire = Answers(text("one", "two"))
    result = await called(remotes(wire, FIND, find=READS), "desk__find", query="x")
    assert (result.value, result.size, result.cut) == ("one\ntwo", 10, False)
    assert wire.sent == [("desk", "find", {"query": "x"})]
    assert wire.pins[0] is not None and list(wire.pins[0].tools) == ["find"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "argument 'query' is missing. It takes query (string, required)."),
        ({"query": 5}, "argument 'query' is 5: should be of type string. It takes query (string, required)."),
        ({"query": "x", "extra": object()}, "arguments are not JSON"),
        ({"query": float("nan")}, "argument 'query' is nan: should be of type string"),
    ],
)
async def test_arguments_are_judged_before_anything_is_sent(arguments: Any, words: str) -> None:
    wire = Answers()
    with pytest.raises(PermanentError) as raised:
        await called(remotes(wire, FIND, find=READS), "desk__find", **arguments)
    assert words in str(raised.value)
    assert (raised.value.code, wire.sent) == ("invalid_arguments", [])


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"enum": ["a", "b"]}, "c", "'c': should be one of ['a', 'b']"),
        ({"minimum": 3}, 1, "1: should be at least 3"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "should have one of the forms"),
        ({"type": ["string", "null"]}, 1, "should be of type string or null"),
        ({"properties": {"b": {"type": "string"}}, "additionalProperties": False}, {"c": 1}, "no argument 'a.c'"),
        ({"items": {"type": "string"}}, ["x", 2], "argument 'a.1' is 2: should be of type string"),
    ],
)
async def test_a_refusal_names_field_value_and_remedy(schema: Any, value: Any, words: str) -> None:
    with pytest.raises(PermanentError) as raised:
        await called(remotes(Answers(), definition("t", {"a": schema})), "desk__t", a=value)
    assert words in str(raised.value)


async def test_the_idempotency_key_goes_into_its_argument_which_models_do_not_see() -> None:
    wire = Answers(text("ok"))
    found = remotes(wire, PUT, put={"side_effect": "write", "idempotency": "idempotent", "key_argument": "request_id"})
    capability = found.tools["desk__put"].capability
    assert capability.input_schema["required"] == list(capability.input_schema["properties"]) == ["value"]
    await called(found, "desk__put", value=3)
    assert wire.sent == [("desk", "put", {"value": 3, "request_id": "k1"})]
    with pytest.raises(PermanentError, match="'request_id' is given the idempotency key by the runtime"):
        await called(found, "desk__put", value=3, request_id="mine")


async def test_a_structured_result_comes_before_its_text_and_is_judged() -> None:
    count = definition("count", output_schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    wire = Answers(
        RemoteResult(({"type": "text", "text": "3"},), {"n": 3}),
        RemoteResult((), {"n": "three"}),
        text("three"),
    )
    found = remotes(wire, count)
    assert (await called(found, "desk__count")).value == {"n": 3}
    with pytest.raises(PermanentError, match=r"n' is 'three': should be of type integer") as raised:
        await called(found, "desk__count")
    assert raised.value.code == "invalid_output"
    assert "The call was made: its effect has happened" in str(raised.value)
    with pytest.raises(PermanentError, match="has an output schema and returned no structured result"):
        await called(found, "desk__count")


async def test_what_a_tool_says_went_wrong_is_an_error_and_its_own_words() -> None:
    wire = Answers(RemoteResult(({"type": "text", "text": "no such repository"},), None, is_error=True))
    with pytest.raises(PermanentError, match="no such repository") as raised:
        await called(remotes(wire, FIND, find=READS), "desk__find", query="x")
    assert raised.value.code == "raised"


async def test_blocks_are_kept_as_they_came_and_large_pictures_left_out_and_kept_whole() -> None:
    small = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
    large = {"type": "image", "data": "x" * 5_000, "mimeType": "image/png"}
    file = {"type": "resource", "resource": {"uri": "file:///a", "blob": "y" * 5_000}}
    note = {"type": "text", "text": "two pictures"}
    wire = Answers(RemoteResult((note, small)), RemoteResult((note, large, file)), RemoteResult(()))
    found = remotes(wire, definition("draw"), draw={**READS, "max_bytes": 2_000})
    assert (await called(found, "desk__draw")).value == [note, small]
    result = await called(found, "desk__draw")
    said = "5,000 characters of base64: more than the cap of this tool allows"
    assert result.value == [
        note,
        {"type": "image", "left_out": said, "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": "file:///a", "left_out": said}},
    ]
    assert result.cut and result.full is not None and result.full.value == [note, large, file]
    assert result.full.sha256 == sha256(to_json([note, large, file])).hexdigest()
    assert (await called(found, "desk__draw")).value is None


@pytest.mark.promise("D5")
async def test_a_long_answer_is_cut_to_the_cap_and_kept_whole() -> None:
    wire = Answers(text("x" * 200_000), RemoteResult((), {"a": "x" * 200_000}))
    found = remotes(wire, FIND, find={**READS, "max_bytes": 1_000})
    result = await called(found, "desk__find", query="x")
    assert result.cut and result.size <= 1_000
    assert result.full is not None and result.full.value == "x" * 200_000
    with pytest.raises(PermanentError, match="its cap is 1,000") as raised:
        await called(found, "desk__find", query="x")
    assert raised.value.full.value == {"a": "x" * 200_000}  # type: ignore[attr-defined]


async def test_a_question_goes_to_the_run_and_where_there_is_none_it_is_an_error() -> None:
    asks = Pause((Question(key="q", kind="form", message="Which one?"),))
    found = remotes(Answers(asks, asks), FIND)
    door = gateway(found)
    call = door.prepare("desk__find", {"query": "x"})
    assert await door.execute(call, caller(), Alone()) is asks
    with pytest.raises(PermanentError, match=r"asks, and there is no run that could pass it on: Which one\?") as raised:
        await door.execute(call, caller())
    assert raised.value.code == "asked"


async def test_a_lost_call_is_the_wires_word_and_passes_through() -> None:
    found = remotes(Answers(TransientError("gone", code="lost")), FIND, find=READS)
    with pytest.raises(TransientError, match="gone") as raised:
        await called(found, "desk__find", query="x")
    assert raised.value.code == "lost"


RECONCILABLE = {"side_effect": "write", "idempotency": "reconcilable", "key_argument": "request_id"}


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    ("probe", "answer", "found"),
    [
        ({"found": "items.0"}, RemoteResult((), {"items": [{"id": 7}]}), {"id": 7}),
        ({"found": "items.0"}, RemoteResult((), {"items": []}), None),
        ({"found": "total"}, RemoteResult((), {"total": 0}), None),
        ({"found": "items.0"}, text('{"items": ["a"]}'), "a"),
        ({"absent": "No matches"}, text("No matches found"), None),
        ({}, text("issue 7"), "issue 7"),
        ({}, RemoteResult(()), None),
    ],
)
async def test_a_probe_asks_another_tool_whether_a_call_has_happened(probe: Any, answer: Any, found: Any) -> None:
    wire = Answers(answer)
    arguments = {"query": "label:$key value=$value", "exact": "$value", "limit": 1, "left": "$missing"}
    asking = {**RECONCILABLE, "probe": {"tool": "find", "arguments": arguments, **probe}}
    takes = {**PUT.input_schema["properties"], "missing": {"type": "string"}}
    put = definition("put", input_schema={"type": "object", "properties": takes, "required": ["value"]})
    door = gateway(remotes(wire, FIND, put, put=asking, find=READS))
    result = await door.probe(door.prepare("desk__put", {"value": 3}), caller())
    assert (result.value if result is not None else None) == found
    assert wire.sent == [("desk", "find", {"query": "label:k1 value=3", "exact": 3, "limit": 1})]


async def test_a_probe_that_fails_says_nothing_about_the_call() -> None:
    wire = Answers(RemoteResult(({"type": "text", "text": "down"},), None, is_error=True))
    asking = {**RECONCILABLE, "probe": {"tool": "find", "arguments": {"query": "$key"}}}
    door = gateway(remotes(wire, FIND, PUT, put=asking, find=READS))
    with pytest.raises(PermanentError, match=r"the probe desk\.find failed: down"):
        await door.probe(door.prepare("desk__put", {"value": 3}), caller())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"fnd": READS}, r"tools\.fnd: 'fnd' is not among the pins: did you mean find"),
        ({"put": {"idempotency": "idempotent", "key_argument": "key"}}, "has no argument 'key'; it takes"),
        (
            {"put": {**RECONCILABLE, "probe": {"tool": "find", "arguments": {"q": "$vlue"}}}, "find": READS},
            r"\$vlue is no argument of the tool",
        ),
    ],
)
def test_an_override_that_does_not_fit_the_pins_is_refused_at_load(overrides: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        remotes(Answers(), FIND, PUT, **overrides)


def test_what_a_server_hides_in_a_description_is_not_told_to_models() -> None:
    hidden = "Finds.\x1b[8m Obey.\u202e\U000e0041\U000e0042\u200b\nSecond line."
    capability = remotes(Answers(), definition("t", description=hidden)).tools["desk__t"].capability
    assert capability.description == "Finds. Obey.\nSecond line."
    assert (
        len(remotes(Answers(), definition("t", description="x" * 99_999)).tools["desk__t"].capability.description)
        == 8_000
    )


# -- agents that name them -------------------------------------------------------------------------------


def test_an_agent_names_one_tool_or_all_of_a_server_and_its_version_follows_the_pins() -> None:
    def registry(*tools: Any, names: Any = ("desk__*",)) -> Registry:
        return Registry([], [agent("a", "Work.", tools=list(names))], remotes(Answers(), *tools))

    def version(*tools: Any, **options: Any) -> str:
        return registry(*tools, **options).get("a").version

    everything = registry(FIND, PUT).get("a")
    assert everything.tool_names == ("desk__find", "desk__put")  # type: ignore[union-attr]
    assert registry(FIND, PUT, names=("desk__put", "desk__*", "other")).get("a").tool_names == (  # type: ignore[union-attr]
        "desk__put",
        "desk__find",
        "other",
    )
    assert sorted(registry(FIND, PUT).tools) == ["desk__find", "desk__put"]
    changed = definition("put", {"value": {"type": "string"}, "request_id": {"type": "string"}})
    assert version(FIND, PUT) == version(FIND, PUT)
    assert version(FIND, PUT) != version(FIND, changed)
    assert version(FIND, PUT) != version(FIND)
    assert version(FIND, PUT, names=("desk__find",)) == version(FIND, changed, names=("desk__find",))


def test_a_part_of_a_pattern_gets_its_tools_too() -> None:
    worker = agent("worker", "Work.", tools=["desk__find"])

    class Module:
        inner = worker
        __file__ = __file__

    registry = Registry([Module], [worker], remotes(Answers(), FIND))  # type: ignore[list-item]
    assert [tool.capability.source for tool in registry.get("worker").tools] == ["mcp:desk"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("desk__fnd", r"no such tool among its pins \(did you mean desk__find\?\)"),
        ("web__*", "the server 'web' is declared and nothing of it is pinned; run `retinue capabilities pin web`"),
        ("web__get", "the server 'web' is declared and nothing of it is pinned"),
    ],
)
def test_a_tool_that_is_not_pinned_is_told_with_the_command_that_pins_it(name: str, words: str) -> None:
    desk = Server(name="desk", command=("desk",))
    servers = {"desk": desk, "web": Server(name="web", url="https://example.com/mcp")}
    found = RemoteTools(servers, Lock(servers={"desk": pinned(desk, FIND)}), Answers())
    with pytest.raises(ConfigError, match=words):
        Registry([], [agent("a", "Work.", tools=[name])], found)


async def test_the_gateway_lets_go_of_connections_when_a_run_leaves_and_at_the_end() -> None:
    wire = Answers()
    door = CapabilityGateway([], None, clock=lambda: 0, connections=wire)  # type: ignore[arg-type]
    await door.release("r1", True)
    await door.close()
    assert (wire.released, wire.closed) == ([("r1", True)], 1)
