"""Decisions: what a model may propose, typed, and how a reply becomes one. Pure.

A reply becomes an answer, tool calls, a question to a person, a handoff or a stop, or it is invalid with the
reason that is returned to the model. Nothing untyped leaves this module.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retinue.runs.contracts import Frozen, Json
from retinue.runs.messages import ModelReply, ToolCall, ToolSpec

_MOST_CALLS = 16


class Answer(Frozen):
    """The final answer as text or as the structured value the schema asked for; not validated yet."""

    type: Literal["answer"] = "answer"
    text: str


class ToolCalls(Frozen):
    """Capabilities to be called now, together."""

    type: Literal["tool_calls"] = "tool_calls"
    calls: tuple[ToolCall, ...]


class AskHuman(Frozen):
    """A question that only a person can answer."""

    type: Literal["ask_human"] = "ask_human"
    question: str
    call_id: str


class Handoff(Frozen):
    """Another agent goes on, with what it needs to know."""

    type: Literal["handoff"] = "handoff"
    agent: str
    artifact: Json = None


class Stop(Frozen):
    """The model sees no way to go on."""

    type: Literal["stop"] = "stop"
    reason: str


class Invalid(Frozen):
    """No decision: what is wrong with the reply, in words the model can use."""

    type: Literal["invalid"] = "invalid"
    problem: str
    call_id: str | None = None


Decision = Annotated[Answer | ToolCalls | AskHuman | Handoff | Stop | Invalid, Field(discriminator="type")]

ASK_HUMAN = ToolSpec(
    name="ask_human",
    description="Ask a person when only a person can know or decide.",
    input_schema={"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
    control=True,
)
STOP = ToolSpec(
    name="stop",
    description="Give up with a reason when the goal cannot be reached.",
    input_schema={"type": "object", "properties": {"reason": {"type": "string"}}, "required": ["reason"]},
    control=True,
)


def hand_off_spec(agents: tuple[str, ...]) -> ToolSpec:
    """The control tool for passing the run to one of `agents`."""
    properties: dict[str, Json] = {"agent": {"enum": list(agents)}, "artifact": {"type": "object"}}
    return ToolSpec(
        name="hand_off",
        description="Pass the work to another agent with what it needs to know.",
        input_schema={"type": "object", "properties": properties, "required": ["agent"]},
        control=True,
    )


def decide(reply: ModelReply, tools: tuple[ToolSpec, ...]) -> Decision:
    """The decision in a reply, given the tools that were disclosed."""
    if not reply.tool_calls:
        return _answer(reply)
    if len(reply.tool_calls) > _MOST_CALLS:
        return Invalid(problem=f"{len(reply.tool_calls)} tool calls at once; at most {_MOST_CALLS} are allowed")
    known = {tool.name: tool for tool in tools}
    for call in reply.tool_calls:
        problem = _problem(call, known)
        if problem:
            return Invalid(problem=problem, call_id=call.id)
    control = [call for call in reply.tool_calls if known[call.name].control]
    if not control:
        return ToolCalls(calls=reply.tool_calls)
    if len(reply.tool_calls) > 1:
        return Invalid(problem=f"{control[0].name} must be the only call of a reply", call_id=control[0].id)
    return _control(control[0], known)


def _answer(reply: ModelReply) -> Decision:
    if reply.finish_reason == "length":
        return Invalid(problem="the reply was cut off at its token limit; answer more briefly")
    if reply.finish_reason == "content_filter":
        return Stop(reason="the model's provider filtered the reply")
    if not reply.text.strip():
        return Invalid(problem="the reply is empty; give an answer or call a tool")
    return Answer(text=reply.text)


def _problem(call: ToolCall, known: dict[str, ToolSpec]) -> str | None:
    if call.name not in known:
        return f"there is no tool {call.name!r}; the tools are: {', '.join(known) or 'none'}"
    if call.arguments is None:
        return f"the arguments of {call.name} are not a JSON object: {call.raw[:200]!r}"
    return None


def _control(call: ToolCall, known: dict[str, ToolSpec]) -> Decision:
    arguments = call.arguments or {}
    missing = [name for name in known[call.name].input_schema["required"] if not arguments.get(name)]
    if missing:
        return Invalid(problem=f"{call.name} needs {missing[0]!r}", call_id=call.id)
    if call.name == ASK_HUMAN.name:
        return AskHuman(question=str(arguments["question"]), call_id=call.id)
    if call.name == STOP.name:
        return Stop(reason=str(arguments["reason"]))
    allowed = known[call.name].input_schema["properties"]["agent"]["enum"]
    if arguments["agent"] not in allowed:
        return Invalid(
            problem=f"cannot hand off to {arguments['agent']!r}; choose from {', '.join(allowed)}",
            call_id=call.id,
        )
    return Handoff(agent=arguments["agent"], artifact=arguments.get("artifact"))
