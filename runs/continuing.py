"""How an agent's work goes on without its whole history: compaction, reset, handoff. Three different things.

A compaction shortens the conversation of the same agent; a reset begins a fresh one in the same run from an
artifact; a handoff gives the artifact to another agent in a run of its own. Each is on record. Knows no store.
"""

from __future__ import annotations

from typing import Any, Literal

from retinue.runs import owing
from retinue.runs.agent_state import AgentState
from retinue.runs.artifacts import Origin, render_artifact, render_recap
from retinue.runs.context import to_json_value
from retinue.runs.contracts import Json, StopReason
from retinue.runs.decisions import Afresh, Handoff
from retinue.runs.definitions import AgentSpec
from retinue.runs.ending import Ended
from retinue.runs.obligations import render_owed
from retinue.runs.packets import ContextPacket, StateText
from retinue.runs.shortening import Dropped, begin_fresh, compact, write_artifact
from retinue.runs.turns import AgentContext


def state_in_words(state: AgentState) -> tuple[StateText, ...]:
    """What stands before the conversation: the artifact it began with, the recap, what is owed."""
    texts = []
    if state.artifact is not None:
        place = f"{state.artifact.kind}:{state.artifact.origin.turn}"
        texts.append(StateText(source=f"artifact:{place}", text=render_artifact(state.artifact)))
    if state.recap is not None:
        texts.append(StateText(source=f"recap:{state.shortened}", text=render_recap(state.recap)))
    owed = render_owed(state.obligations, state.next_steps)
    if owed:
        texts.append(StateText(source="obligations", text=owed, firm=True))
    return tuple(texts)


def shorten(
    ctx: AgentContext, spec: AgentSpec, state: AgentState, packet: ContextPacket
) -> tuple[AgentState, Dropped] | None:
    """The compacted state, when the packet wants more than its share of the limit and enough turns can go."""
    policy = spec.compaction
    if policy is None or packet.wanted <= policy.at * ctx.context_limit:
        return None
    return compact(state, policy.keep_turns, ctx.context_limit)


def record_compaction(ctx: AgentContext, state: AgentState, dropped: Dropped, before: int, after: int) -> None:
    """Put a compaction on record: what was dropped, the tokens before and after, the recap that stands for it."""
    content = {"dropped": list(dropped.hashes), "recap": state.recap and state.recap.model_dump(mode="json")}
    facts: dict[str, Json] = {
        "number": state.shortened,
        "first_turn": dropped.first,
        "last_turn": dropped.last,
        "tokens_before": before,
        "tokens_after": after,
        "limit": ctx.context_limit,
    }
    ctx.record("compaction", content, turn=state.turn, count=len(dropped.hashes), **facts)


def reset_due(spec: AgentSpec, state: AgentState) -> bool:
    """True when the agent's policy wants a fresh start before this turn."""
    policy = spec.reset
    if policy is None:
        return False
    turns = policy.turns is not None and state.turn - state.fresh_at >= policy.turns
    return turns or (policy.compactions is not None and state.compactions >= policy.compactions)


async def reset(ctx: AgentContext, spec: AgentSpec, state: AgentState, decision: Afresh | None = None) -> Any:
    """Continue as new with a fresh state: by the model's decision, or by policy when there is none."""
    by: Literal["model", "policy"] = "policy" if decision is None else "model"
    turn = state.turn
    if decision is None:
        ctx.record("decision", {"type": "reset", "by": by}, turn=turn, type="reset", tools=[])
    else:
        turn += 1
        state = state if decision.next is None else state.model_copy(update={"next_steps": decision.next})
    notes = decision.notes if decision else ""
    artifact = write_artifact(state, "reset", _origin(ctx, spec, state), ctx.context_limit, notes=notes)
    fresh = begin_fresh(state, artifact, turn)
    facts: dict[str, Json] = {"number": fresh.resets, "by": by, "count": len(state.conversation)}
    facts["obligations"] = len(artifact.obligations)
    ctx.record("reset", artifact.model_dump(mode="json"), turn=state.turn, **facts)
    return await ctx.checkpoint("reset", fresh)


async def hand_off(ctx: AgentContext, spec: AgentSpec, input: Json, state: AgentState, decision: Handoff) -> Any:
    """Another agent goes on with the artifact; what it answers is the answer."""
    given = None if input == state.goal else input
    origin = _origin(ctx, spec, state)
    written = write_artifact(
        state, "handoff", origin, ctx.context_limit, artifact=decision.artifact, input=given
    ).model_dump(mode="json")
    facts: dict[str, Json] = {"to": decision.agent, "from": spec.name, "version": origin.version}
    ctx.record("handoff", written, turn=state.turn, obligations=len(state.left_open), **facts)
    handed = owing.hand_over(ctx, state)
    value = await ctx.run(decision.agent, written)
    return Ended(to_json_value(value), StopReason.handoff, {"to": decision.agent, **handed})


def _origin(ctx: AgentContext, spec: AgentSpec, state: AgentState) -> Origin:
    return Origin(agent=spec.name, version=ctx.request.target_version, run_id=ctx.request.run_id, turn=state.turn)
