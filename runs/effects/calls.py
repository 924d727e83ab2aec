"""Capability calls: validate, gate, reserve, intend, act, validate, settle. The order is the guarantee.

An intent of a write is durable before the call is made and its outcome before anything depends on it. A call
that was interrupted between the two is never repeated in silence: its idempotency contract decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from retinue.runs.asked import ASKED, asked_in_full, asked_of_call
from retinue.runs.capabilities import NOT_MADE, SANDBOX, Caller, CallResult, Prepared
from retinue.runs.contracts import NOTHING, ErrorInfo, Json, StopReason, Usage
from retinue.runs.effects import (
    asking,
    breaking,
    doubts,
    remote,
    retrying,
    rolling,
    sampling,
    sandboxed,
    weighing,
    wholes,
)
from retinue.runs.effects.run import Run
from retinue.runs.effects.weighing import Weighed, is_write
from retinue.runs.errors import EffectError, Fenced, PermanentError, StoreUnreachable, TransientError
from retinue.runs.journal import Intent
from retinue.runs.resources import lacking
from retinue.runs.sessions import Pause, Resumption
from retinue.runs.steps import EDITED, Command, Done, Wait, asked_by, error_info

_SETTLE_NS = 1_000_000_000
_ONE_HOP = Usage(hops=1)
_ANOTHER = "its approver has given it other arguments since"


async def perform(run: Run, command: Command) -> Done | Wait:
    """Make a capability call, or go on with one."""
    try:
        ended = await _perform(run, command)
        if isinstance(ended, Done):
            ended = _unless_made(run, command, ended)
            sampling.let_go(run, command.key)
            await rolling.ended(run, command, ended)
    except (Fenced, StoreUnreachable):
        raise
    except Exception as error:  # whatever it is, it says nothing about an earlier try
        if not _may_have_happened(run, command):
            raise
        ended = _left_open(run, command, str(error))
    return _told(run, command, ended) if isinstance(ended, Done) else ended


def _unless_made(run: Run, command: Command, done: Done) -> Done:
    """How a call ended; one that is refused is left open when an earlier try may have been made."""
    if done.result == "refused" and done.error is not None and _may_have_happened(run, command):
        return _left_open(run, command, done.error.message, done)
    return done


def _may_have_happened(run: Run, command: Command) -> bool:
    """Whether a try of a write was begun, by whichever owner, of which nobody knows that it was not made."""
    intent, key = run.history.intents.get(command.key), command.key
    return intent is not None and intent.writes and (run.history.interrupted(key) or key in run.history.unsure)


def _left_open(run: Run, command: Command, why: str, refused: Done | None = None) -> Done:
    """The outcome of a write that is not made again though an earlier try may have been; tries that ended are paid.
    What the gate said stays with it, where that `refused` the next one.
    """
    usage = _ONE_HOP if run.history.interrupted(command.key) else NOTHING
    done = doubts.unknown(command.name, f"{_doubt(command)}; not made again: {why}", usage)
    done.facts |= {} if refused is None else refused.facts
    return done


def _told(run: Run, command: Command, done: Done) -> Done:
    """How the call ended, with the arguments it was made with where they are not those that were asked for."""
    intent = run.history.intents.get(command.key)
    changed = intent.facts.get(EDITED) if intent is not None else None
    if intent is None or changed is None:
        return done
    done.value = {"called": intent.content, "value": done.value}
    done.facts = done.facts | {EDITED: changed}
    return done


async def _perform(run: Run, command: Command) -> Done | Wait:
    asked = weighing.prepare(run, command)
    _check_needs(run, asked)
    waiting = retrying.due(run, command)
    if waiting is not None:
        return waiting
    intent = run.history.intents.get(command.key)
    made = weighing.as_made(run, command, asked)
    if asked.capability.server is not None:
        stopped = await _still_allowed(run, command, asked, made)
        if stopped is not None:
            return stopped
        way = await remote.resume(run, command, made)
        if way is not None:
            if not isinstance(way, Resumption):
                return way
            caller = replace(weighing.caller_of(run, command, made), deadline=remote.sent_until(run, command))
            return await _execute(run, command, made, caller, way)
    if (lost := sandboxed.cut_off(run, command, made, intent)) is not None:
        return lost
    if intent is not None and is_write(asked):
        command.doubted = command.doubted or ("" if asked.capability.repeatable else _lost_try(run, command))
        if command.interrupted or command.doubted:
            return await _recover(run, command, made, intent)
    command.interrupted = False
    return await _begin(run, command, asked)


def _lost_try(run: Run, command: Command) -> str:
    """How the newest try ended that may have been made and was to be continued, when it cannot be any more."""
    tries = run.history.attempts.get(command.key, ())
    return next((each.error.message for each in reversed(tries) if each.error.code not in NOT_MADE), "")


async def _still_allowed(run: Run, command: Command, asked: Prepared, made: Prepared) -> Done | None:
    """A call that was begun on a server is asked about again before it is continued; a denial ends it there."""
    if not remote.goes_on(run, command):
        return None
    weighed = await weighing.weigh(run, command, asked)
    if weighed.outside is None and weighed.decision.outcome != "deny":
        return None
    remote.give_up(run, command, made)
    denied = _denied(run, command, weighed)
    if not is_write(made):
        return denied
    done = doubts.unknown(command.name, f"{command.name} was begun and is not continued: {weighed.refusal}", _ONE_HOP)
    done.facts |= denied.facts
    return done


async def _begin(run: Run, command: Command, asked: Prepared) -> Done | Wait:
    weighed = await weighing.weigh(run, command, asked)
    if weighed.refusal is not None:
        return await _not_allowed(run, command, weighed)
    call = weighed.call
    if _is_another(run, command, call):
        return _left_open(run, command, _ANOTHER)
    blocked = await breaking.blocked(run, _breaker(call))
    if blocked is not None:
        return blocked
    if asking.record_yes(run, command):
        remote.approval_ended(run, command, call, "approved")
    run.ledger.reserve(command.key, _ONE_HOP)
    if is_write(call) or sandboxed.must_be_on_record(call):
        await run.write(_intent(run, command, weighed))
    elif command.key not in run.history.intents:
        run.note(_intent(run, command, weighed))
    return await _execute(run, command, call, weighed.caller)


def _is_another(run: Run, command: Command, call: Prepared) -> bool:
    """Whether this is another call than the one that may have happened: by its key it would be taken for that one."""
    if not _may_have_happened(run, command):
        return False
    return weighing.as_made(run, command, weighing.prepare(run, command)).digest != call.digest


async def _not_allowed(run: Run, command: Command, weighed: Weighed) -> Done | Wait:
    """Ask a person, or refuse: the call that was asked for, or the one that its approver made of it."""
    call, decision = weighed.call, weighed.decision
    told = asked_in_full(call, weighed.caller)
    changed = call is not weighed.asked
    if weighed.outside is None and not changed and decision.outcome == "approval_required":
        remote.waits_for_approval(run, command, call)
        ended = await asking.for_approval(run, command, call, decision, told)
        if isinstance(ended, Done):
            remote.approval_ended(run, command, call, "denied")
        return ended
    remote.approval_ended(run, command, call, "denied")
    if changed:
        why = f"its arguments were changed by its approver, and the call with them: {decision.reason}"
        return asking.refused(run, command, call, decision, (why, told))
    return _denied(run, command, weighed)


def _denied(run: Run, command: Command, weighed: Weighed) -> Done:
    if weighed.outside is not None:
        error = ErrorInfo(reason="policy_denied", code="canary", message=weighed.outside)
        return Done(result="refused", error=error, hard=False)
    decision = weighed.decision
    asking.record_asked(run, command, weighed.call, asked_in_full(weighed.call, weighed.caller))
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


async def _execute(
    run: Run, command: Command, call: Prepared, caller: Caller, resumption: Resumption | None = None
) -> Done | Wait:
    started = run.services.now_ns()
    facts: dict[str, Json] = {}
    result: CallResult | Pause
    try:
        if call.capability.source == SANDBOX:
            result, facts = await sandboxed.execute(run, command, call, caller)
        elif call.capability.server is None:
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
    return _done(run, call, result, started, facts)


def _breaker(call: Prepared) -> str:
    return f"capability:{call.capability.name}"


def _done(
    run: Run, call: Prepared, result: CallResult, started: int, more: Mapping[str, Json] = MappingProxyType({})
) -> Done:
    """How a call that went well ended; `more` are facts of where it was made."""
    facts: dict[str, Json] = {
        "size": result.size,
        "cut": result.cut,
        "micros": (run.services.now_ns() - started) // 1000,
        **more,
    }
    hard = is_write(call) or call.capability.durable or run.services.defaults.strict or "generation" in more
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
        if isinstance(follows, Done) and is_write(call) and (gone or command.key in run.history.unsure):
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
        found = await run.services.gateway.probe(call, weighing.caller_of(run, command, call))
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
    weighed = await weighing.weigh(run, command, weighing.prepare(run, command))
    if weighed.refusal is not None:
        return _left_open(run, command, weighed.refusal, _denied(run, command, weighed))
    if _is_another(run, command, weighed.call):
        return _left_open(run, command, _ANOTHER)
    command.interrupted, command.doubted = False, ""
    run.ledger.reserve(command.key, _ONE_HOP)
    now = run.services.now_ns()
    facts = intent.facts | {"deadline": weighing.deadline(call, now), "gate": weighed.decision.facts}
    await run.write(intent.model_copy(update={"at": now, "facts": facts}))
    return await _execute(run, command, call, weighed.caller)


def _doubt(command: Command) -> str:
    died = "its owner died before the answer came" if command.interrupted else "an earlier try may have been made"
    return f"{command.name} may have happened: {command.doubted or died}"


def _intent(run: Run, command: Command, weighed: Weighed) -> Intent:
    call, capability = weighed.call, weighed.call.capability
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
            "gate": weighed.decision.facts,
            ASKED: asked_of_call(call, weighed.caller),
            **(_contract(call, now) if is_write(call) else {}),
            **({"deadline": weighing.deadline(call, now)} if sandboxed.must_be_on_record(call) else {}),
            **asked_by(command),
            **weighing.on_record(run, command, weighed),
        },
    )


def _contract(call: Prepared, now: int) -> dict[str, Json]:
    """What holds for a write: whether it may be sent again, and the moment after which it must not be applied."""
    return {"idempotency": call.capability.idempotency, "deadline": weighing.deadline(call, now)}
