"""Capability calls: validate, gate, reserve, intend, act, validate, settle. The order is the guarantee.

An intent of a write is durable before the call is made and its outcome before anything depends on it. A call
that was interrupted between the two is never repeated in silence: its idempotency contract decides.
"""

from __future__ import annotations

from retinue.runs.asked import ASKED, asked_in_full, asked_of_call
from retinue.runs.capabilities import NOT_MADE, Caller, CallResult, Prepared
from retinue.runs.contracts import ErrorInfo, Json, StopReason, Usage
from retinue.runs.effects import asking, breaking, doubts, editing, remote, retrying, rolling, wholes
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, PermanentError, TransientError
from retinue.runs.forking import write_name
from retinue.runs.gate import GateDecision
from retinue.runs.identity import effect_key
from retinue.runs.journal import Intent
from retinue.runs.resources import lacking
from retinue.runs.sessions import Pause, Resumption
from retinue.runs.steps import Command, Done, Wait, asked_by, error_info
from retinue.runs.tracing import span_id_of, traceparent

_SETTLE_NS = 1_000_000_000
_ONE_HOP = Usage(hops=1)


async def perform(run: Run, command: Command) -> Done | Wait:
    """Make a capability call, or go on with one."""
    ended = await _perform(run, command)
    if isinstance(ended, Done):
        await rolling.ended(run, command, ended)
    return editing.told(run, command, ended) if isinstance(ended, Done) else ended


async def _perform(run: Run, command: Command) -> Done | Wait:
    asked = await rolling.staged(run, run.services.gateway.prepare(command.name, command.arguments))
    _check_needs(run, asked)
    waiting = retrying.due(run, command)
    if waiting is not None:
        return waiting
    intent = run.history.intents.get(command.key)
    made = asked if intent is None else editing.as_made(run, asked, intent)
    if asked.capability.server is not None:
        stopped = _still_allowed(run, command, asked, made)
        if stopped is not None:
            return stopped
        way = await remote.resume(run, command, made)
        if way is not None:
            if not isinstance(way, Resumption):
                return way
            return await _execute(run, command, made, _caller(run, command, made), way)
    if intent is not None and _is_write(asked) and (command.interrupted or command.doubted):
        return await _recover(run, command, made, intent)
    command.interrupted = False
    if (why := rolling.outside(run, asked)) is not None:
        return _outside(why)
    return await _begin(run, command, asked)


def _still_allowed(run: Run, command: Command, asked: Prepared, made: Prepared) -> Done | None:
    """A call that was begun on a server is asked about again before it is continued; a denial ends it there."""
    if not remote.goes_on(run, command):
        return None
    caller = _caller(run, command, asked)
    _, decision = _weigh(run, command, asked, caller)
    outside = rolling.outside(run, asked)
    if outside is None and decision.outcome != "deny":
        return None
    remote.give_up(run, command, made)
    if _is_write(made):
        why = f"{command.name} was begun and is not continued: {outside or decision.reason}"
        return doubts.unknown(command.name, why, _ONE_HOP)
    if outside is not None:
        return _outside(outside)
    return _denied(run, command, made, decision, caller)


async def _begin(run: Run, command: Command, asked: Prepared) -> Done | Wait:
    caller = _caller(run, command, asked)
    call, decision = _weigh(run, command, asked, caller)
    if decision.outcome != "allow":
        return await _not_allowed(run, command, (asked, call), decision, caller)
    blocked = await breaking.blocked(run, _breaker(call))
    if blocked is not None:
        return blocked
    if asking.record_yes(run, command):
        remote.approval_ended(run, command, call, "approved")
    run.ledger.reserve(command.key, _ONE_HOP)
    intended = run.write(_intent(run, command, call, decision, caller)) if _is_write(call) else None
    if intended is not None:
        await intended
    elif command.key not in run.history.intents:
        run.note(_intent(run, command, call, decision, caller))
    return await _execute(run, command, call, caller)


def _weigh(run: Run, command: Command, asked: Prepared, caller: Caller) -> tuple[Prepared, GateDecision]:
    """The call to make and what the gate says of it: as it was asked for, then as its approver changed it."""
    decision = _decide(run, command, asked, caller)
    changes = asking.edit(run, command)
    if changes is None or decision.outcome != "allow":
        return asked, decision
    call = rolling.like(asked, run.services.gateway.prepare(command.name, {**asked.arguments, **changes}))
    return call, run.services.gateway.decide(call, caller, asking.approval(run, command, asked, call))


async def _not_allowed(
    run: Run, command: Command, calls: tuple[Prepared, Prepared], decision: GateDecision, caller: Caller
) -> Done | Wait:
    """Ask a person, or refuse: the call that was `asked` for, or the one that its approver made of it."""
    asked, call = calls
    told = asked_in_full(call, caller)
    if call is asked and decision.outcome == "approval_required":
        remote.waits_for_approval(run, command, call)
        ended = await asking.for_approval(run, command, call, decision, told)
        if isinstance(ended, Done):
            remote.approval_ended(run, command, call, "denied")
        return ended
    remote.approval_ended(run, command, call, "denied")
    if call is not asked:
        why = f"its arguments were changed by its approver, and the call with them: {decision.reason}"
        return asking.refused(run, command, call, decision, (why, told))
    return _denied(run, command, call, decision, caller)


def _outside(why: str) -> Done:
    return Done(result="refused", error=ErrorInfo(reason="policy_denied", code="canary", message=why), hard=False)


def _denied(run: Run, command: Command, call: Prepared, decision: GateDecision, caller: Caller) -> Done:
    asking.record_asked(run, command, call, asked_in_full(call, caller))
    error = ErrorInfo(reason="policy_denied", code="denied", message=decision.reason)
    return Done(result="refused", error=error, facts={"gate": decision.facts}, hard=False)


def _check_needs(run: Run, call: Prepared) -> None:
    """A workflow says itself what its tools need: nobody can see from outside which it will call."""
    if call.capability.needs is None:
        return
    target = run.request.target
    missing = lacking(run.services.registry.needs_of(target), call.capability.needs)
    if missing:
        raise PermanentError(
            f"tool {call.capability.name!r} needs {', '.join(missing)}, which {target!r} does not declare: give "
            f"{target!r} the same `needs`, or call the tool from an agent or a child workflow that has them",
            code="needs",
        )


def _decide(run: Run, command: Command, call: Prepared, caller: Caller) -> GateDecision:
    """What the gate says; a fork asks a person besides, before it makes a write that its original has made."""
    approval = asking.approval(run, command, call)
    decision = run.services.gateway.decide(call, caller, approval)
    repeats = _is_write(call) and write_name(command.name, command.digest) in run.request.repeats
    if decision.outcome != "allow" or not repeats:
        return decision
    given = approval is not None and approval.by != run.request.principal_id
    if approval is not None and given and asking.binds(run, approval, call, decision):
        return decision
    reason = f"run {run.request.forked_from} has made this very write already, and this fork would make it again"
    return GateDecision(outcome="approval_required", reason=reason, rules=decision.rules, digest=decision.digest)


async def _execute(
    run: Run, command: Command, call: Prepared, caller: Caller, resumption: Resumption | None = None
) -> Done | Wait:
    started = run.services.now_ns()
    try:
        if call.capability.server is None:
            result = await run.services.gateway.execute(call, caller)
        else:
            result = await remote.execute(run, command, call, caller, resumption)
    except EffectError as error:
        wholes.keep(run, command, error.full)
        await breaking.report(run, _breaker(call), error)
        return await _failed(run, command, call, error)
    await breaking.report(run, _breaker(call))
    if isinstance(result, Pause):
        return await _perform(run, command)
    wholes.keep(run, command, result.full)
    return _done(run, call, result, started)


def _breaker(call: Prepared) -> str:
    return f"capability:{call.capability.name}"


def _done(run: Run, call: Prepared, result: CallResult, started: int) -> Done:
    facts: dict[str, Json] = {
        "size": result.size,
        "cut": result.cut,
        "micros": (run.services.now_ns() - started) // 1000,
    }
    hard = _is_write(call) or call.capability.durable or run.services.defaults.strict
    return Done(value=result.value, usage=_ONE_HOP, facts=facts, hard=hard)


async def _failed(run: Run, command: Command, call: Prepared, error: EffectError) -> Done | Wait:
    """A failed call: continue it while that can be, retry what may be repeated; what may have happened is in doubt; the
    rest is an error.
    """
    if remote.continues(run, command, error):
        follows = retrying.after(run, command, error, _ONE_HOP)
        if isinstance(follows, Wait):
            return follows
        remote.give_up(run, command, call)
    elif (cut := remote.cut_off(run, command, call, error)) is not None:
        return cut
    if call.capability.repeatable or error.code in NOT_MADE:
        follows = retrying.after(run, command, error, _ONE_HOP)
        gone = isinstance(error, TransientError) and error.code not in NOT_MADE
        if isinstance(follows, Done) and _is_write(call) and (gone or command.key in run.history.unsure):
            why = "its tries are used up" if isinstance(error, TransientError) else "an earlier try may have been made"
            command.doubted = f"{error}, and {why}"
            return await _unresolved(run, command, call)
        return follows
    if isinstance(error, TransientError) or error.code == "raised":
        command.doubted = str(error)
        return await _recover(run, command, call, run.history.intents[command.key])
    return Done(result="error", error=error_info(error), usage=_ONE_HOP)


async def _recover(run: Run, command: Command, call: Prepared, intent: Intent) -> Done | Wait:
    """The write may have happened: its owner died between intent and outcome, or nobody heard how it ended."""
    match doubts.way(run, command, call, "failure" if command.doubted else "crash"):
        case "nobody":
            return doubts.unknown(command.name, f"{_doubt(command)} and must not be repeated", _ONE_HOP)
        case "person":
            return await _ask(run, command, call, intent)
    if call.capability.idempotency == "idempotent":
        return await _again(run, command, call, intent)
    return await _probe(run, command, call, intent)


async def _probe(run: Run, command: Command, call: Prepared, intent: Intent) -> Done | Wait:
    """Ask the other side, when what was sent cannot take effect any more."""
    settled_at = max(int(intent.facts.get("deadline", 0)), remote.sent_until(run, command)) + _SETTLE_NS
    if run.services.now_ns() < settled_at:
        return Wait(StopReason.retry_later, at=settled_at)
    try:
        found = await run.services.gateway.probe(call, _caller(run, command, call))
    except EffectError as error:
        command.doubted = f"the probe of {command.name} failed: {error}"
        return await _unresolved(run, command, call)
    if found is not None:
        wholes.keep(run, command, found.full)
        return _done(run, call, found, run.services.now_ns())
    return await _again(run, command, call, intent)


async def _unresolved(run: Run, command: Command, call: Prepared) -> Done | Wait:
    """What the contract offers is used up: a person is asked, unless the policy forbids that too."""
    if doubts.way(run, command, call, "no_probe") == "person":
        return await _ask(run, command, call, run.history.intents[command.key])
    return doubts.unknown(command.name, _doubt(command), _ONE_HOP)


async def _ask(run: Run, command: Command, call: Prepared, intent: Intent) -> Done | Wait:
    said = await doubts.ask(run, command, _doubt(command), asking.excerpt(call.arguments))
    if isinstance(said, Wait):
        return said
    if said.verdict == "happened":
        return Done(value=said.value, usage=_ONE_HOP, facts={"said_by": said.by})
    if said.verdict == "fail":
        return doubts.unknown(command.name, f"{_doubt(command)}; {said.by} could not tell", _ONE_HOP)
    return await _again(run, command, call, intent)


async def _again(run: Run, command: Command, call: Prepared, intent: Intent) -> Done | Wait:
    """Make the write once more, with its key, if the gate still allows it; say so first, with a new deadline."""
    caller = _caller(run, command, call)
    asked = await rolling.staged(run, run.services.gateway.prepare(command.name, command.arguments))
    _, decision = _weigh(run, command, asked, caller)
    why = rolling.outside(run, asked) or (decision.reason if decision.outcome != "allow" else None)
    if why is not None:
        return doubts.unknown(command.name, f"{_doubt(command)}; not made again: {why}", _ONE_HOP)
    command.interrupted, command.doubted = False, ""
    run.ledger.reserve(command.key, _ONE_HOP)
    now = run.services.now_ns()
    facts = intent.facts | {"deadline": _deadline(call, now), "gate": decision.facts}
    await run.write(intent.model_copy(update={"at": now, "facts": facts}))
    return await _execute(run, command, call, caller)


def _doubt(command: Command) -> str:
    return f"{command.name} may have happened: {command.doubted or 'its owner died before the answer came'}"


def _is_write(call: Prepared) -> bool:
    return call.capability.side_effect == "write"


def _intent(run: Run, command: Command, call: Prepared, decision: GateDecision, caller: Caller) -> Intent:
    capability = call.capability
    now = run.services.now_ns()
    return Intent(
        at=now,
        content=call.arguments,
        key=command.key,
        effect="call",
        name=command.name,
        digest=command.digest,
        reserved=_ONE_HOP,
        facts={
            "version": capability.version,
            "side_effect": capability.side_effect,
            "source": capability.source,
            "gate": decision.facts,
            ASKED: asked_of_call(call, caller),
            **(_contract(call, now) if _is_write(call) else {}),
            **asked_by(command),
            **editing.on_record(run, command, call),
        },
    )


def _contract(call: Prepared, now: int) -> dict[str, Json]:
    """What holds for a write: whether it may be sent again, and the moment after which it must not be applied."""
    return {"idempotency": call.capability.idempotency, "deadline": _deadline(call, now)}


def _deadline(call: Prepared, now: int) -> int:
    return now + int(call.capability.timeout * 1e9)


def _caller(run: Run, command: Command, call: Prepared) -> Caller:
    request = run.request
    return Caller(
        run_id=request.run_id,
        root_run_id=request.root_run_id,
        tenant_id=request.tenant_id,
        principal_id=request.principal_id,
        agent=request.target,
        route=request.route,
        depth=request.depth,
        key=effect_key(request.effect_scope, command.key),
        epoch=run.leased.epoch,
        deadline=_deadline(call, run.services.now_ns()),
        traceparent=traceparent(request.trace_id, span_id_of(request.run_id, command.key)),
        budget=run.ledger.remaining(),
        facts=rolling.facts_of(run, call.capability),
    )
