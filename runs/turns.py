"""The context of an agent's turns: the workflow context, and the stages only the loop has.

Owns how a turn asks the gate, the model and the tools. Knows no journal.
"""

from __future__ import annotations

from typing import Any, Protocol

from retinue.runs.agent_memory import proposed
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, Json
from retinue.runs.decisions import ASK_HUMAN, PLAN, RESET, STOP, hand_off_spec, remember_spec
from retinue.runs.definitions import AgentSpec, Definition
from retinue.runs.effects.models import reply_of
from retinue.runs.errors import RetinueError
from retinue.runs.executor import Executor
from retinue.runs.gate import GateDecision, Stage
from retinue.runs.identity import digest_of
from retinue.runs.journal import Outcome
from retinue.runs.memories import REMEMBER
from retinue.runs.messages import ModelReply, ModelRequest, ToolCall, ToolSpec
from retinue.runs.packets import ContextPacket, ContextRequest
from retinue.runs.ports import Services
from retinue.runs.sandboxes import AGENT_TOOLS
from retinue.runs.values import value_of


class ServedExecutor(Executor, Protocol):
    """An executor whose services a turn may ask what is pure: specifications, packets, defaults."""

    services: Services


class AgentContext(Context):
    """Given to the agent loop instead of the plain context."""

    def __init__(self, executor: ServedExecutor) -> None:
        super().__init__(executor)
        self._services = executor.services

    @property
    def now_ns(self) -> int:
        """The time of the newest outcome, Unix ns."""
        return self._executor.now_ns()

    @property
    def context_limit(self) -> int:
        """Tokens a packet may have."""
        return self._services.defaults.context_tokens

    @property
    def model_timeout(self) -> float:
        """Seconds a model call may take."""
        return self._services.defaults.model_timeout

    def model_name(self, spec: AgentSpec) -> str:
        """The model to call: the run's, the agent's, or the configuration's."""
        return self.request.model or spec.model or self._services.defaults.model

    def build(self, request: ContextRequest) -> ContextPacket:
        """The context packet of this turn."""
        return self._services.contexts.build(request)

    def accepted(self, call: ToolCall) -> dict[str, Json] | None:
        """The arguments of a call as its tool will see them, defaults filled in; None when they do not fit."""
        if call.name == REMEMBER:
            return call.arguments
        try:
            return self._services.gateway.prepare(call.name, call.arguments or {}).arguments
        except RetinueError:
            return None

    def disclosed(self, spec: AgentSpec) -> tuple[ToolSpec, ...]:
        """The tools the model may name: the agent's capabilities and the decisions it may take."""
        tools = [self._services.gateway.capability(name).spec for name in spec.tool_names]
        if spec.asks:
            tools.append(ASK_HUMAN)
        if spec.handoffs:
            tools.append(hand_off_spec(spec.handoffs))
        if spec.plans:
            tools.append(PLAN)
        if spec.memory:
            tools.append(remember_spec(spec.memory))
        if spec.reset is not None and spec.reset.by_model:
            tools.append(RESET)
        return (*tools, STOP) if tools else ()

    def _carried(self, name: str, state: Any) -> Any:
        """The loop's own state is frozen and read back as its type: it may be handed on as it is."""
        return state

    async def gate(self, stage: Stage, resource: str, facts: dict[str, Json]) -> GateDecision:
        """Ask the gate at a stage of the loop; the decision is replayed."""
        outcome = await self._executor.issue("gate", resource, facts, {"stage": stage})
        return GateDecision.model_validate(value_of(outcome))

    async def model(self, request: ModelRequest, prompt: str | None) -> ModelReply:
        """Call the model. Raises what it ended with: PolicyDenied, PermanentModelError, ..."""
        arguments: Json = {
            "model": request.model,
            "messages": digest_of([message.model_dump(mode="json") for message in request.messages]),
            "tools": [tool.name for tool in request.tools],
            "schema": request.output_schema,
        }
        options = {"request": request, "prompt": prompt, "stream": self.request.route == "stream"}
        outcome = await self._executor.issue("model", request.model, arguments, options)
        value_of(outcome)
        return reply_of(outcome)

    async def try_call(self, call: ToolCall, turn: int) -> Outcome:
        """Call a capability, or keep what the model proposes to; refusals and errors are outcomes too."""
        options: dict[str, Any] = {"call_id": call.id, "turn": turn}
        spec = self._executor.definition(self.request.target)
        if call.name == REMEMBER and isinstance(spec, AgentSpec) and spec.memory:
            return await self._executor.issue("remember", REMEMBER, proposed(call, spec, self.request), options)
        if isinstance(spec, AgentSpec) and spec.sandbox is not None and call.name in AGENT_TOOLS:
            options["sandbox"] = spec.sandbox
        return await self._executor.issue("call", call.name, call.arguments or {}, options)


class RelayedContext(AgentContext):
    """For an agent whose parent takes its handoff: what it passes on is its result, and nobody is run here."""

    async def run(self, target: Definition | str, input: Any, budget: Budget | None = None) -> Any:
        """The artifact itself: the loop ends with it, with the reason `handoff`. UnknownName when there is no such
        target.
        """
        self._executor.definition(target)
        return input
