"""Asking a person: the request in the inbox, and what came back.

A request is durable with the intent that names it. An approval is bound to the arguments and to the policy it
was asked under; the gate sees it again when the call is made.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.arrivals import Answer
from retinue.runs.capabilities import Prepared
from retinue.runs.contracts import ErrorInfo, Json, PendingRequest, StopReason
from retinue.runs.effects.run import Run
from retinue.runs.gate import Approval, GateDecision
from retinue.runs.identity import APPROVAL, digest_of, effect_key
from retinue.runs.journal import EffectKind, Intent, Outcome
from retinue.runs.patience import Patience
from retinue.runs.steps import Command, Done, Wait


def approval(run: Run, command: Command, digest: str) -> Approval | None:
    """The yes that was given for this call, if there is one."""
    intent = run.history.intents.get(command.key + APPROVAL)
    answer = run.news.answers.get(command.key + APPROVAL)
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
    key = command.key + APPROVAL
    if key not in run.history.intents:
        facts: dict[str, Json] = {
            "gate": decision.facts,
            "capability": command.name,
            "version": call.capability.version,
            "digest": call.digest,
            "policy_digest": decision.digest,
            **({} if call.capability.server is None else {"server": call.capability.server}),
        }
        prompt = f"May {run.request.target} call {command.name}? {decision.reason}"
        return await put(run, command, key, ("approval", f"{prompt}\n{excerpt(call.arguments)}", facts))
    answer = await answered(run, key)
    if isinstance(answer, Wait):
        return answer
    record_answer(run, key, answer)
    said = {"denied": f"denied by {answer.by}", "expired": "nobody answered in time"}
    why = said.get(answer.status, f"approved, but {decision.reason}")
    error = ErrorInfo(reason="policy_denied", code="not_approved", message=f"{command.name}: {why}")
    return Done(result="refused", error=error, facts={"gate": decision.facts})


async def put(
    run: Run,
    command: Command,
    key: str,
    question: tuple[EffectKind, str, dict[str, Json]],
    patience: Patience | None = None,
    asked: dict[str, Json] | None = None,
) -> Wait:
    """Put a question (kind, prompt, facts) into the inbox and wait; who is patient for how long, or the default.

    `asked` is the form that an answer has to have, or the address that is to be visited.
    """
    kind, prompt, facts = question
    patience = patience or run.services.defaults.patience
    now = run.services.now_ns()
    late = {name: value for name, value in patience.moments(now).items() if value is not None}
    intent = Intent(
        at=now,
        content={"prompt": prompt} if asked is None else {"prompt": prompt, "asked": asked},
        key=key,
        effect=kind,
        name=command.name,
        digest=command.digest if key == command.key else digest_of(facts),
        facts={**facts, **late, "request_id": effect_key(run.request.run_id, _asked_as(run, key))[:12]},
    )
    said = {**facts, "requester": run.request.principal_id}
    request = _request(run, intent, prompt=prompt, asked=asked or {}, facts=said, assignee=patience.assignee)
    await run.write(intent, request=request)
    return _wait(intent)


def _request(run: Run, intent: Intent, **said: Any) -> PendingRequest:
    """The request behind a question, with what is `said` of it."""
    return PendingRequest(
        request_id=str(intent.facts["request_id"]),
        run_id=run.request.run_id,
        root_run_id=run.request.root_run_id,
        tenant_id=run.request.tenant_id,
        kind="approval" if intent.effect == "approval" else "input",
        key=intent.key,
        created_at=intent.at,
        expires_at=intent.facts.get("expires_at"),
        **said,
    )


async def answered(run: Run, key: str) -> Answer | Wait:
    """What was said to a question that was put, or the wait for it: until it is escalated, until it expires."""
    answer = run.news.answers.get(key)
    if answer is not None:
        return answer
    intent, now = run.history.intents[key], run.services.now_ns()
    expires, escalates = intent.facts.get("expires_at"), intent.facts.get("escalate_at")
    if expires is not None and now >= expires:
        return await _change(run, intent, {"status": "expired"})
    if escalates is not None and now >= escalates:
        changed = {**intent.facts, "assignee": intent.facts.get("escalate_to"), "escalated_at": now}
        moved = intent.model_copy(update={"facts": {k: v for k, v in changed.items() if k != "escalate_at"}})
        return await _change(run, moved, {"assignee": changed["assignee"], "escalated_at": now})
    return _wait(intent)


async def _change(run: Run, intent: Intent, change: dict[str, Json]) -> Answer | Wait:
    """Change the request behind a question, unless an answer has come in between."""
    await run.write(intent, request=_request(run, intent, prompt="", **change))
    run.take(await run.services.journal.look(run.request.run_id))
    return run.news.answers.get(intent.key) or _wait(intent)


def _wait(intent: Intent) -> Wait:
    """The wait for an answer to a question, woken when it is to be escalated or expires."""
    reason = StopReason.approval_required if intent.effect == "approval" else StopReason.input_required
    if "doubt" in intent.facts:
        reason = StopReason.side_effect_unknown
    moments = [int(at) for name in ("escalate_at", "expires_at") if (at := intent.facts.get(name)) is not None]
    return Wait(reason, at=min(moments, default=None), request=intent.key)


def _asked_as(run: Run, key: str) -> str:
    """A retried run asks anew: what was said before the retry is no answer to it."""
    change = run.history.amendment
    return key if change is None else f"{key}@{change.retries}"


def record_answer(run: Run, key: str, answer: Answer) -> None:
    """Put on record what was said to a question of the runtime's own."""
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


def record_yes(run: Run, command: Command) -> bool:
    """Put an approval that is being used on record; whether there is one that was not."""
    key = command.key + APPROVAL
    answer = run.news.answers.get(key)
    if answer is None or key in run.history.outcomes:
        return False
    record_answer(run, key, answer)
    return True


def excerpt(arguments: dict[str, Json]) -> str:
    """The arguments of a call as a person is shown them, cut when they are long."""
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return text if len(text) <= 2_000 else text[:2_000] + f"... ({len(text)} characters)"
