"""The gate as a step of its own: stages that are not about one capability call.

Request pre-check, context, model and output pass here; capability calls are gated by the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.runs.asked import ASKED, asked_at_stage
from retinue.runs.capabilities import Prepared
from retinue.runs.contracts import Json
from retinue.runs.effects.run import Run
from retinue.runs.gate import Approval, GateDecision, GateRequest, Stage
from retinue.runs.journal import Record
from retinue.runs.steps import Command, Done


def perform(run: Run, command: Command) -> Done:
    """Decide a stage the function has reached, at once; the decision is the outcome, replayed ever after."""
    stage, facts = command.options["stage"], command.arguments
    decision = decide(run, Concern(stage, command.name, facts, command.key, rollout=str(facts.get("rollout", "full"))))
    return Done(value=decision.model_dump(mode="json"), hard=False)


@dataclass(frozen=True, slots=True)
class Concern:
    """What a stage is asked about: of which resource, what is known of it, for which step.

    `contract` is that of the write which is concerned; None of what only reads. A `call` is there where its arguments
    are judged, with the `approval` that was given for it.
    """

    stage: Stage
    resource: str
    facts: dict[str, Json]
    key: str | None = None
    contract: str | None = None
    rollout: str = "full"
    call: Prepared | None = None
    approval: Approval | None = None


def decide(run: Run, concern: Concern) -> GateDecision:
    """Ask the gate and put the decision on record."""
    decision, record = ask(run, concern)
    run.note(record)
    return decision


def ask(run: Run, concern: Concern) -> tuple[GateDecision, Record]:
    """What the gate says, and the record of it, for those who have something to note before: a yes that it rests on."""
    now = run.services.now_ns()
    asked = _request(run, concern, now)
    decision = run.services.gate.decide(asked)
    follows = concern.stage == "model" and decision.outcome == "allow"  # then its intent has the facts
    said: dict[str, Json] = {
        "stage": concern.stage,
        "resource": concern.resource,
        "key": concern.key,
        "decision": decision.facts,
        ASKED: asked_at_stage(asked, facts=not follows),
    }
    return decision, Record(at=now, topic="policy", by="runtime", facts=said)


def _request(run: Run, concern: Concern, now: int) -> GateRequest:
    request, call, write = run.request, concern.call, concern.contract is not None
    return GateRequest(
        stage=concern.stage,
        run_id=request.run_id,
        tenant=request.tenant_id,
        principal=request.principal_id,
        agent=request.target,
        route=request.route,
        depth=request.depth,
        resource=concern.resource,
        side_effect="write" if write else "read",
        idempotency=concern.contract,
        digest="" if call is None else call.digest,
        arguments={} if call is None else call.arguments,
        budget=run.ledger.remaining(),
        approval=concern.approval,
        rollout=concern.rollout,
        facts=concern.facts,
        now=0 if concern.approval is None else now,
    )
