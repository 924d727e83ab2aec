"""From a name and arguments to a call that was weighed: prepared, at the stage of its rollout, judged by the gate.

The one place for that, whether a call is begun, continued or repeated: what is on record (the rollout, a person's yes
and what its giver changed) counts as it is now. Knows nothing of how a call is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.runs.capabilities import Caller, Prepared
from retinue.runs.contracts import Json
from retinue.runs.effects import asking, rolling, sandbox_facts
from retinue.runs.effects.run import Run
from retinue.runs.errors import PermanentError
from retinue.runs.forking import write_name
from retinue.runs.gate import GateDecision
from retinue.runs.identity import effect_key
from retinue.runs.live_sandboxes import BRING
from retinue.runs.steps import EDITED, Command
from retinue.runs.tracing import span_id_of, traceparent


@dataclass(frozen=True, slots=True)
class Weighed:
    """A call as it was `asked` for, the `call` that was weighed (as its approver changed it), and what was said of it.

    `outside` says why this run is not given the capability at all.
    """

    asked: Prepared
    call: Prepared
    caller: Caller
    decision: GateDecision
    outside: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why it may not be made now; None when it may."""
        return self.outside or (None if self.decision.outcome == "allow" else self.decision.reason)


def prepare(run: Run, command: Command) -> Prepared:
    """The call as it was asked for; a write that was begun as it was then, whatever its defaults are now: it goes by
    the same key. Raises as the gateway's `prepare` does.
    """
    intent = run.history.intents.get(command.key)
    begun = intent is not None and intent.writes and EDITED not in intent.facts and isinstance(intent.content, dict)
    return run.services.gateway.prepare(command.name, intent.content if intent and begun else command.arguments)


def as_made(run: Run, command: Command, asked: Prepared) -> Prepared:
    """The call that its intent speaks of: with the arguments that an approver gave it. PermanentError `erased` when
    these are gone.
    """
    intent = run.history.intents.get(command.key)
    if intent is None or EDITED not in intent.facts:
        return asked
    if not isinstance(intent.content, dict):
        raise PermanentError(f"{command.name}: the arguments that its approver gave it were erased", code="erased")
    return run.services.gateway.prepare(command.name, intent.content)


async def weigh(run: Run, command: Command, asked: Prepared) -> Weighed:
    """What the gate says of a call now: as it was asked for, then as its approver changed it.

    PermanentError `invalid_arguments` when what the approver made of it fits no schema.
    """
    asked = await rolling.staged(run, asked)
    caller = caller_of(run, command, asked)
    decision = _decide(run, command, asked, caller)
    outside = rolling.outside(run, asked)
    changes = asking.edit(run, command)
    if changes is None or decision.outcome != "allow" or outside is not None:
        return Weighed(asked, asked, caller, decision, outside)
    changed = run.services.gateway.prepare(command.name, {**asked.arguments, **changes})
    call = rolling.like(asked, changed)
    decision = run.services.gateway.decide(call, caller, asking.approval(run, command, asked, call))
    return Weighed(asked, call, caller, decision)


async def weigh_again(run: Run, key: str, given: tuple[str, dict[str, Json]], facts: dict[str, Json]) -> Weighed:
    """What the gate says now of a call (name, arguments) that was made by a step of old, without what a person said."""
    name, arguments = given
    call = await rolling.staged(run, run.services.gateway.prepare(name, arguments))
    caller = caller_at(run, key, call, facts)
    return Weighed(call, call, caller, run.services.gateway.decide(call, caller, None))


def on_record(run: Run, command: Command, weighed: Weighed) -> dict[str, Json]:
    """The fact of an intent that says who changed the arguments, with the digests of both calls; empty without."""
    if asking.edit(run, command) is None:
        return {}
    given = asking.approval(run, command, weighed.asked)
    by = given.by if given is not None else ""
    return {EDITED: {"by": by, "asked": weighed.asked.digest, "called": weighed.call.digest}}


def caller_of(run: Run, command: Command, call: Prepared) -> Caller:
    """On whose behalf a call is made, until when from now on, and what rules see of its rollout and its sandbox."""
    return caller_at(run, command.key, call, sandbox_facts.of_call(run, command, call))


def caller_at(run: Run, key: str, call: Prepared, facts: dict[str, Json]) -> Caller:
    """The same for a step that is no command of now, with facts of its own."""
    request = run.request
    return Caller(
        run_id=request.run_id,
        root_run_id=request.root_run_id,
        tenant_id=request.tenant_id,
        principal_id=request.principal_id,
        agent=request.target,
        route=request.route,
        depth=request.depth,
        key=effect_key(request.effect_scope, key),
        epoch=run.leased.epoch,
        deadline=deadline(call, run.services.now_ns()),
        traceparent=traceparent(request.trace_id, span_id_of(request.run_id, key)),
        budget=run.ledger.remaining(),
        facts=rolling.facts_of(run, call.capability) | facts,
    )


def deadline(call: Prepared, now: int) -> int:
    """The moment (Unix ns) after which a call that is made now must not be applied. In a sandbox, which may have to be
    brought back first, there is time for that besides."""
    bring = BRING if sandbox_facts.in_sandbox(call) else 0.0
    return now + int((sandbox_facts.seconds_of(call) + bring) * 1e9)


def is_write(call: Prepared) -> bool:
    """Whether a call changes the world."""
    return call.capability.side_effect == "write"


def _decide(run: Run, command: Command, call: Prepared, caller: Caller) -> GateDecision:
    """What the gate says; a fork asks a person besides, before it makes a write that its original has made."""
    approval = asking.approval(run, command, call)
    decision = run.services.gateway.decide(call, caller, approval)
    repeats = is_write(call) and write_name(command.name, command.digest) in run.request.repeats
    if decision.outcome != "allow" or not repeats:
        return decision
    if asking.grants(run, approval, call, decision):
        return decision
    reason = f"run {run.request.forked_from} has made this very write already, and this fork would make it again"
    return GateDecision(outcome="approval_required", reason=reason, rules=decision.rules, digest=decision.digest)
