"""Asking a person: the request in the inbox, and what came back.

A request is durable with the intent that names it. An approval is bound to the call's version and arguments, to the
policy it was asked under and to a time; the gate weighs it again when the call is made, and one that does not bind
any more is asked for again. Its giver may change the arguments: then those are what it is bound to.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.arrivals import Answer
from retinue.runs.asked import ASKED
from retinue.runs.capabilities import Prepared
from retinue.runs.contracts import ErrorInfo, Json, PendingRequest, StopReason
from retinue.runs.effects.run import Run
from retinue.runs.gate import Approval, GateDecision
from retinue.runs.identity import APPROVAL, digest_of, effect_key
from retinue.runs.journal import EffectKind, Intent, Outcome, Record
from retinue.runs.patience import Patience
from retinue.runs.steps import Command, Done, Wait


def approval(run: Run, command: Command, call: Prepared, edited: Prepared | None = None) -> Approval | None:
    """The newest yes to this call, if there is one; its giver may have made another call of it (`edited`)."""
    key = _newest(run, command)
    intent, answer = run.history.intents.get(key), run.news.answers.get(key)
    if intent is None or answer is None or answer.status != "approved":
        return None
    digest, lasts = str(intent.facts.get("digest")), run.services.defaults.approval_lasts
    return Approval(
        request_id=answer.request_id,
        by=answer.by,
        at=answer.at,
        digest=edited.digest if edited is not None and digest == call.digest else digest,
        policy_digest=str(intent.facts.get("policy_digest")),
        expires_at=None if lasts is None else answer.at + int(lasts * 1e9),
    )


def edit(run: Run, command: Command) -> dict[str, Json] | None:
    """The arguments that the giver of the newest yes put in place of those asked about; None where it changed none."""
    answer = run.news.answers.get(_newest(run, command))
    value = answer.value if answer is not None and answer.status == "approved" else None
    return value["arguments"] if isinstance(value, dict) and isinstance(value.get("arguments"), dict) else None


def binds(run: Run, given: Approval, call: Prepared, decision: GateDecision) -> bool:
    """Whether a yes is to this call, under these rules, and has not run out."""
    late = given.expires_at is not None and run.services.now_ns() >= given.expires_at
    return given.digest == call.digest and given.policy_digest == decision.digest and not late


def grants(run: Run, given: Approval | None, call: Prepared, decision: GateDecision) -> bool:
    """Whether a yes binds and is another person's than the requester's: what a fork needs to write a thing again."""
    return given is not None and given.by != run.request.principal_id and binds(run, given, call, decision)


def _newest(run: Run, command: Command) -> str:
    """The key of the newest question about a call: it is put again when the yes to the one before does not bind."""
    key = command.key + APPROVAL
    while key + APPROVAL in run.history.intents:
        key += APPROVAL
    return key


async def for_approval(
    run: Run, command: Command, call: Prepared, decision: GateDecision, asked: dict[str, Json]
) -> Done | Wait:
    """Ask for a yes to a call, or act on the no. A yes that does not bind any more is asked for again; one whose
    giver could not say it is a no. `asked` is what the journal keeps of the question to the gate.
    """
    key = _newest(run, command)
    if key not in run.history.intents:
        return await _put_call(run, command, key, call, (decision, asked))
    answer = await answered(run, key)
    if isinstance(answer, Wait):
        return answer
    if key not in run.history.outcomes:  # a yes that was used for an earlier try is on record
        record_answer(run, key, answer)
    given = approval(run, command, call)
    if given is not None and not binds(run, given, call, decision):
        return await _put_call(run, command, key + APPROVAL, call, (decision, asked))
    said = {"denied": f"denied by {answer.by}", "expired": "nobody answered in time"}
    return refused(run, command, call, decision, (said.get(answer.status, f"approved, but {decision.reason}"), asked))


async def _put_call(
    run: Run, command: Command, key: str, call: Prepared, why: tuple[GateDecision, dict[str, Json]]
) -> Wait:
    """Ask whether a call may be made: whoever is asked sees its arguments, and the request says who may say yes."""
    decision, asked = why
    approver = decision.approver.model_dump(mode="json", exclude_defaults=True) if decision.approver else {}
    facts: dict[str, Json] = {
        "gate": decision.facts,
        "capability": command.name,
        "version": call.capability.version,
        "digest": call.digest,
        "policy_digest": decision.digest,
        "approver": approver,
        ASKED: asked,
        **({} if call.capability.server is None else {"server": call.capability.server}),
    }
    roles = f" A yes needs the role {', '.join(approver['roles'])}." if approver.get("roles") else ""
    prompt = f"May {run.request.target} call {command.name}? {decision.reason}{roles}\n{excerpt(call.arguments)}"
    return await put(run, command, key, ("approval", prompt, facts), content={"arguments": call.arguments})


def refused(
    run: Run, command: Command, call: Prepared, decision: GateDecision, why: tuple[str, dict[str, Json]]
) -> Done:
    """A call that is not made because a person said no, or could not say yes; what was asked is put on record."""
    reason, asked = why
    record_asked(run, command, call, asked)
    error = ErrorInfo(reason="policy_denied", code="not_approved", message=f"{command.name}: {reason}")
    return Done(result="refused", error=error, facts={"gate": decision.facts})


def record_asked(run: Run, command: Command, call: Prepared, asked: dict[str, Json]) -> None:
    """Put on record what the gate was asked about a call that is not made: there is no intent that says so."""
    facts: dict[str, Json] = {"key": command.key, "name": command.name, ASKED: asked}
    content = {"arguments": call.arguments}
    run.note(Record(at=run.services.now_ns(), topic=ASKED, by="runtime", facts=facts, content=content))


async def put(
    run: Run,
    command: Command,
    key: str,
    question: tuple[EffectKind, str, dict[str, Json]],
    patience: Patience | None = None,
    content: dict[str, Json] | None = None,
) -> Wait:
    """Put a question (kind, prompt, facts) into the inbox and wait; who is patient for how long, or the default.

    `content` is kept in the journal beside the prompt; its `asked` is the form that an answer has to have, or the
    address that is to be visited, and goes with the request.
    """
    kind, prompt, facts = question
    patience = patience or run.services.defaults.patience
    now = run.services.now_ns()
    late = {name: value for name, value in patience.moments(now).items() if value is not None}
    intent = Intent(
        at=now,
        content={"prompt": prompt, **(content or {})},
        key=key,
        effect=kind,
        name=command.name,
        digest=command.digest if key == command.key else digest_of(facts),
        facts={**facts, **late, "request_id": effect_key(run.request.run_id, _asked_as(run, key))[:12]},
    )
    said = {**facts, "requester": run.request.principal_id}
    request = _request(
        run, intent, prompt=prompt, asked=(content or {}).get("asked", {}), facts=said, assignee=patience.assignee
    )
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


async def withdraw(run: Run, key: str) -> None:
    """Nobody needs an answer to this question any more; one that has come in between counts for nothing."""
    intent = run.history.intents[key]
    facts: dict[str, Json] = {"status": "withdrawn", "request_id": intent.facts.get("request_id")}
    outcome = Outcome(
        at=run.services.now_ns(),
        key=key,
        effect=intent.effect,
        name=intent.name,
        activation=0,
        result="canceled",
        facts=facts,
    )
    await run.write(outcome, request=_request(run, intent, prompt="", status="withdrawn"))


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
    asked = run.history.intents[key]
    run.note(
        Outcome(
            at=answer.at,
            content=answer.value,
            key=key,
            effect=asked.effect,
            name=asked.effect,
            activation=0,
            facts={"status": answer.status, "by": answer.by, "request_id": answer.request_id},
        )
    )


def record_yes(run: Run, command: Command) -> bool:
    """Put an approval that is being used on record; whether there is one that was not."""
    key = _newest(run, command)
    answer = run.news.answers.get(key)
    if answer is None or key not in run.history.intents or key in run.history.outcomes:
        return False
    record_answer(run, key, answer)
    return True


def excerpt(arguments: dict[str, Json]) -> str:
    """The arguments of a call as a person is shown them, cut when they are long."""
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return text if len(text) <= 2_000 else text[:2_000] + f"... ({len(text)} characters)"
