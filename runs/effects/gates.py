"""The gate as a step of its own: stages that are not about one capability call.

Request pre-check, context, model and output pass here; capability calls are gated by the gateway.
"""

from __future__ import annotations

from retinue.runs.asked import ASKED, asked_at_stage
from retinue.runs.contracts import Json
from retinue.runs.effects.run import Run
from retinue.runs.gate import GateDecision, GateRequest, Stage
from retinue.runs.journal import Record
from retinue.runs.steps import Command, Done


def perform(run: Run, command: Command) -> Done:
    """Decide a stage the function has reached, at once; the decision is the outcome, replayed ever after."""
    decision = decide(run, command.options["stage"], command.name, command.arguments, command.key)
    return Done(value=decision.model_dump(mode="json"), hard=False)


def decide(
    run: Run,
    stage: Stage,
    resource: str,
    facts: dict[str, Json],
    key: str | None = None,
    contract: str | None = None,
) -> GateDecision:
    """Ask the gate and put the decision on record; `contract` is that of the write which is concerned."""
    request = run.request
    asked = GateRequest(
        stage=stage,
        run_id=request.run_id,
        tenant=request.tenant_id,
        principal=request.principal_id,
        agent=request.target,
        route=request.route,
        depth=request.depth,
        resource=resource,
        side_effect="read" if contract is None else "write",
        idempotency=contract,
        budget=run.ledger.remaining(),
        rollout=str(facts.get("rollout", "full")),
        facts=facts,
    )
    decision = run.services.gate.decide(asked)
    follows = stage == "model" and decision.outcome == "allow"  # then its intent has the facts
    said: dict[str, Json] = {
        "stage": stage,
        "resource": resource,
        "key": key,
        "decision": decision.facts,
        ASKED: asked_at_stage(asked, facts=not follows),
    }
    run.note(Record(at=run.services.now_ns(), topic="policy", by="runtime", facts=said))
    return decision
