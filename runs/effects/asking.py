"""Asking a person: the request in the inbox, and what came back.

A request is durable with the intent that names it. An approval is bound to the arguments and to the policy it
was asked under; the gate sees it again when the call is made.
"""

from __future__ import annotations

from retinue.runs.arrivals import Answer
from retinue.runs.capabilities import Prepared
from retinue.runs.contracts import ErrorInfo, Json, PendingRequest, StopReason
from retinue.runs.effects.run import Run
from retinue.runs.gate import Approval, GateDecision
from retinue.runs.identity import digest_of, effect_key
from retinue.runs.journal import Intent, Outcome
from retinue.runs.steps import Command, Done, Wait

_APPROVAL = "!approval"


def approval(run: Run, command: Command, digest: str) -> Approval | None:
    """The yes that was given for this call, if there is one."""
    intent = run.history.intents.get(command.key + _APPROVAL)
    answer = run.news.answers.get(command.key + _APPROVAL)
    if intent is None or answer is None or answer.status != "approved":
        return None
    return Approval(
        request_id=answer.request_id,
        by=answer.by,
        at=answer.at,
        digest=str(intent.facts.get("digest")),
        policy_digest=str(intent.facts.get("policy_digest")),
    )


async def for_approval(run: Run, command: Command, call: Prepared, decision: GateDecision) -> Done | Wait:
    """Ask for a yes to a call, or act on the no; a yes that does not cover the call any more is a no."""
    key = command.key + _APPROVAL
    answer = run.news.answers.get(key)
    if answer is not None:
        _record_answer(run, key, answer)
        why = f"denied by {answer.by}" if answer.status == "denied" else f"approved, but {decision.reason}"
        error = ErrorInfo(reason="policy_denied", code="not_approved", message=f"{command.name}: {why}")
        return Done(result="refused", error=error, facts={"gate": decision.facts})
    prompt = f"May {run.request.target} call {command.name}? {decision.reason}"
    facts: dict[str, Json] = {
        "gate": decision.facts,
        "capability": command.name,
        "version": call.capability.version,
        "digest": call.digest,
        "policy_digest": decision.digest,
    }
    shown = f"{prompt}\n{_excerpt(call.arguments)}"
    await put(run, command, key, ("approval", shown, facts))
    return Wait(StopReason.approval_required, request=key)


async def put(run: Run, command: Command, key: str, question: tuple[str, str, dict[str, Json]]) -> None:
    """Put a question (kind, prompt, facts) into the inbox, once."""
    if key in run.history.intents:
        return
    kind, prompt, facts = question
    now = run.services.now_ns()
    request = PendingRequest(
        request_id=effect_key(run.request.run_id, key)[:12],
        run_id=run.request.run_id,
        root_run_id=run.request.root_run_id,
        tenant_id=run.request.tenant_id,
        kind="approval" if kind == "approval" else "input",
        key=key,
        prompt=prompt,
        facts={**facts, "requester": run.request.principal_id},
        created_at=now,
    )
    intent = Intent(
        at=now,
        content={"prompt": prompt},
        key=key,
        effect=request.kind,
        name=command.name,
        digest=command.digest if key == command.key else digest_of(facts),
        facts={**facts, "request_id": request.request_id},
    )
    await run.write(intent, request=request)


def _record_answer(run: Run, key: str, answer: Answer) -> None:
    run.note(
        Outcome(
            at=answer.at,
            content=answer.value,
            key=key,
            effect="approval",
            name="approval",
            activation=0,
            facts={"status": answer.status, "by": answer.by, "request_id": answer.request_id},
        )
    )


def record_yes(run: Run, command: Command) -> None:
    """Put an approval that is being used on record."""
    key = command.key + _APPROVAL
    answer = run.news.answers.get(key)
    if answer is not None and key not in run.history.outcomes:
        _record_answer(run, key, answer)


def _excerpt(arguments: dict[str, Json]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return text if len(text) <= 2_000 else text[:2_000] + f"... ({len(text)} characters)"
