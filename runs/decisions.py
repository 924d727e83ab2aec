"""Decisions: what a model may propose, typed, and how a reply becomes one. Pure.

A reply becomes an answer, tool calls, a question to a person, a handoff, a fresh start or a stop, or it is invalid
with the reason that is returned to the model. A plan may come with tool calls. Nothing untyped leaves this module.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_core import to_json

from retinue.runs.contracts import Frozen, Json
from retinue.runs.memories import REMEMBER
from retinue.runs.messages import ModelReply, ToolCall, ToolSpec
from retinue.runs.obligations import LONGEST

_MOST_CALLS = 16
_MOST_STEPS = 8
_MOST_NOTES = 4_000


class Plan(Frozen):
    """What the model takes on, settles and means to do next (None: as before).

    `answer` is the final answer, where this plan settles all that is owed.
    """

    call: ToolCall
    add: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    next: tuple[str, ...] | None = None
    answer: Json = None


class Answer(Frozen):
    """The final answer as text or as the structured value the schema asked for; not validated yet."""

    type: Literal["answer"] = "answer"
    text: str
    plan: Plan | None = None


class ToolCalls(Frozen):
    """Capabilities to be called now, together; none when the model only plans."""

    type: Literal["tool_calls"] = "tool_calls"
    calls: tuple[ToolCall, ...]
    plan: Plan | None = None


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


class Afresh(Frozen):
    """The model wants to go on with an empty conversation, from an artifact with these notes."""

    type: Literal["reset"] = "reset"
    notes: str
    next: tuple[str, ...] | None = None


class Stop(Frozen):
    """The model sees no way to go on."""

    type: Literal["stop"] = "stop"
    reason: str


class Invalid(Frozen):
    """No decision: what is wrong with the reply, in words the model can use."""

    type: Literal["invalid"] = "invalid"
    problem: str
    call_id: str | None = None


Decision = Annotated[Answer | ToolCalls | AskHuman | Handoff | Afresh | Stop | Invalid, Field(discriminator="type")]

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
_TEXTS: Json = {"type": "array", "items": {"type": "string"}}
PLAN = ToolSpec(
    name="plan",
    description=(
        "Keep track of what you owe: add obligations, settle open ones by id (done), name the next steps. With "
        "`answer` this is your final answer. May be called together with other tools."
    ),
    input_schema={
        "type": "object",
        "properties": {"add": _TEXTS, "done": _TEXTS, "next": _TEXTS, "answer": {}},
        "required": [],
    },
    control=True,
)
RESET = ToolSpec(
    name="reset",
    description="Go on with an empty conversation; only obligations, a summary and your notes are kept.",
    input_schema={
        "type": "object",
        "properties": {"notes": {"type": "string"}, "next": _TEXTS},
        "required": ["notes"],
    },
    control=True,
)


def remember_spec(scopes: tuple[str, ...]) -> ToolSpec:
    """The tool for keeping something for later runs."""
    properties: dict[str, Json] = {
        "content": {"type": "string", "description": "what to keep, in words that make sense by themselves"},
        "scope": {"enum": list(scopes), "description": f"whose memory; {scopes[0]} when left out"},
        "key": {"type": "string", "description": "a name; what had it before is replaced"},
    }
    return ToolSpec(
        name=REMEMBER,
        description="Keep something that later runs should know: a fact, a preference, a lesson. No secrets.",
        input_schema={"type": "object", "properties": properties, "required": ["content"]},
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
    plans = [call for call in reply.tool_calls if call.name == PLAN.name and known[call.name].control]
    others = tuple(call for call in reply.tool_calls if call not in plans)
    control = [call for call in others if known[call.name].control]
    if len(control) and len(reply.tool_calls) > 1:
        return Invalid(problem=f"{control[0].name} must be the only call of a reply", call_id=control[0].id)
    if control:
        return _control(control[0], known)
    return _planned(others, plans) if plans else ToolCalls(calls=others)


def _planned(calls: tuple[ToolCall, ...], plans: list[ToolCall]) -> Decision:
    """Tool calls with a plan, or the answer that a plan carries."""
    if len(plans) > 1:
        return Invalid(problem="plan may be called once in a reply", call_id=plans[1].id)
    given = plans[0].arguments or {}
    texts = {name: _texts(given.get(name)) for name in ("add", "done", "next")}
    bad = next((name for name, value in texts.items() if value is None and given.get(name) is not None), None)
    if bad is not None:
        return Invalid(problem=f"plan needs a list of texts as {bad!r}, not {given[bad]!r:.80}", call_id=plans[0].id)
    plan = Plan(
        call=plans[0],
        add=texts["add"] or (),
        done=texts["done"] or (),
        next=_steps(texts["next"]),
        answer=given.get("answer"),
    )
    if plan.answer is None:
        return ToolCalls(calls=calls, plan=plan)
    if calls:
        return Invalid(problem="a plan with an answer must be the only call of a reply", call_id=plan.call.id)
    text = plan.answer if isinstance(plan.answer, str) else to_json(plan.answer).decode()
    return Answer(text=text, plan=plan)


def _texts(value: Json) -> tuple[str, ...] | None:
    good = isinstance(value, list) and all(isinstance(part, str) and part.strip() for part in value)
    return tuple(value) if good else None


def _steps(steps: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if steps is None else tuple(step[:LONGEST] for step in steps[:_MOST_STEPS])


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
    if call.name == RESET.name:
        return Afresh(notes=str(arguments["notes"])[:_MOST_NOTES], next=_steps(_texts(arguments.get("next"))))
    allowed = known[call.name].input_schema["properties"]["agent"]["enum"]
    if arguments["agent"] not in allowed:
        return Invalid(
            problem=f"cannot hand off to {arguments['agent']!r}; choose from {', '.join(allowed)}",
            call_id=call.id,
        )
    return Handoff(agent=arguments["agent"], artifact=arguments.get("artifact"))
