"""An agent's memory in its turns: what is recalled before the first one, and the memories that its model proposes.

Recalled once, and again after a reset; each item says where it comes from and how old it is. Knows no store.
"""

from __future__ import annotations

from datetime import UTC, datetime

from retinue.runs.agent_state import AgentState
from retinue.runs.context import Context
from retinue.runs.contracts import Json, RunRequest
from retinue.runs.definitions import AgentSpec
from retinue.runs.errors import PolicyDenied
from retinue.runs.memories import Memory, Scope, space_of
from retinue.runs.messages import ToolCall
from retinue.runs.packets import StateText

RECALLED = 5
"""Memories of one scope that an agent is shown."""
_SHOWN = 600
"""Characters of one memory that it is shown."""


async def load(ctx: Context, spec: AgentSpec, state: AgentState) -> AgentState:
    """The state with what its memory says about its goal; a scope that may not be read is put on record."""
    if not spec.memory or state.recalled is not None:
        return state
    found: list[Memory] = []
    for scope in spec.memory:
        if scope == "instance" and ctx.request.agent_instance_id is None:
            continue
        try:
            found += await ctx.recall(state.goal, scope=scope, k=RECALLED, fill=True)
        except PolicyDenied as error:
            ctx.record("memory", {"why": str(error)}, turn=state.turn, name=scope, recalled=False)
    return state.model_copy(update={"recalled": tuple(map(_shown, found))})


def proposed(call: ToolCall, spec: AgentSpec, request: RunRequest) -> dict[str, Json]:
    """What a model wants kept as the arguments of the step; `problem` where it cannot be."""
    given = call.arguments or {}
    scope: Scope = given.get("scope") or spec.memory[0]
    wanted: dict[str, Json] = {"content": given.get("content"), "key": given.get("key"), "tags": []}
    if scope not in spec.memory:
        return {**wanted, "problem": f"scope {str(scope)[:40]!r} is none of {', '.join(spec.memory)}"}
    if wanted["key"] is not None and not isinstance(wanted["key"], str):
        return {**wanted, "problem": "the key is no text"}
    return {**space_of(request, scope).model_dump(), **wanted}


def _shown(memory: Memory) -> StateText:
    day = datetime.fromtimestamp(memory.at / 1e9, tz=UTC).strftime("%Y-%m-%d")
    text = memory.text if len(memory.text) <= _SHOWN else f"{memory.text[:_SHOWN]}... ({len(memory.text)} characters)"
    name = f" ({memory.key})" if memory.key else ""
    said = f"From the memory of {memory.space}, written on {day} by {memory.agent}{name}: {text}"
    return StateText(source=f"memory:{memory.memory_id}", text=said, kind="memory", fresh_at=memory.at)
