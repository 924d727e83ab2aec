"""How a definition becomes a running function: a workflow is called, an agent is put into the loop.

Knows both kinds and nothing of how effects are carried out.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from retinue.runs.agent_state import AgentState
from retinue.runs.checking import checked
from retinue.runs.context import Context
from retinue.runs.contracts import Json
from retinue.runs.definitions import AgentSpec, Definition, Workflow, parse_as
from retinue.runs.loop import run_agent
from retinue.runs.turns import AgentContext, RelayedContext, ServedExecutor


def start(definition: Definition, executor: ServedExecutor, input: Json, state: Json) -> Coroutine[Any, Any, Any]:
    """The coroutine of one call of the function: the first, or the one after a checkpoint."""
    if isinstance(definition, AgentSpec):
        kind = RelayedContext if executor.request.relayed else AgentContext
        return _agent(definition, kind(executor), input, state)
    return _workflow(definition, Context(executor), input, state)


async def _agent(spec: AgentSpec, ctx: AgentContext, input: Json, state: Json) -> Any:
    if spec.input is not None and state is None:
        parse_as(spec.input, input, f"input of {spec.name}")
    parsed = AgentState.model_validate(state) if isinstance(state, dict) else state
    return await run_agent(ctx, spec, input, parsed)


async def _workflow(definition: Workflow, ctx: Context, input: Json, state: Json) -> Any:
    value = parse_as(definition.input, input, f"input of {definition.name}")
    given = (ctx, value, state) if definition.takes_state else (ctx, value)
    return await checked(ctx, definition, await definition.function(*given))
