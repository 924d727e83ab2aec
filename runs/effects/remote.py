"""Calls to servers: what can be continued is continued before anything else is tried, what is asked is passed on.

A call that pauses is durable with what it asks and with its token in one append; what was replied is sent once, a
token that must not be used twice is off the journal before. Only what cannot be continued is left to the contract of
the capability. Knows no wire.
"""

from __future__ import annotations

import asyncio
import math
from typing import Literal

from retinue.runs.capabilities import NOT_MADE, Caller, CallResult, Prepared
from retinue.runs.contracts import Json, Usage
from retinue.runs.effects import asking, doubts, questions
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, PermanentError, TransientError
from retinue.runs.journal import Record
from retinue.runs.session_past import CONTINUATION, Continuation
from retinue.runs.sessions import Pause, Reply, Resumption, SessionStatus, Token, Wire
from retinue.runs.steps import Command, Done, Wait, error_info

_ROUNDS = 32
"""How often a call may ask before it is given up."""
_QUESTIONS = 32
"""How much it may ask at once."""
_PROGRESS, _APART = 100, 1_000_000_000
"""How often a call's progress is told at most, and how far apart (ns)."""
_CUT = frozenset({"session_closed", "asks_too_much"})
_ONE_HOP = Usage(hops=1)


class CallLink:
    """Implements `sessions.Link` for one sending of a call; deaf when that is over."""

    def __init__(self, run: Run, command: Command, call: Prepared, resumption: Resumption | None) -> None:
        self.resumption = resumption
        self.open = True
        self._run = run
        self._key, self._name = command.key, command.name
        self._server = str(call.capability.server)
        self._told = 0
        self._newest = -_APART

    def opened(self, wire: Wire) -> None:
        """See Link."""
        if self.open:
            self._run.sessions.connected(self._server, self._key, wire)

    def lost(self, cause: str) -> None:
        """See Link."""
        if self.open:
            self._run.sessions.lost(self._server, self._key, cause)

    def progress(self, done: float, total: float | None, message: str) -> None:
        """See Link. At most one a second, and 100 a call."""
        now = self._run.services.now_ns()
        wanted = self.open and self._run.services.defaults.sessions.emit_progress_events
        if not wanted or self._told >= _PROGRESS or now - self._newest < _APART:
            return
        self._told, self._newest = self._told + 1, now
        facts: dict[str, Json] = {"key": self._key, "name": self._name, "done": done, "total": total}
        content = {"message": message} if message else None
        self._run.note(Record(at=now, topic="progress", by="runtime", facts=facts, content=content))

    async def keep(self, token: Token | None) -> None:
        """See Link."""
        known = self._run.history.remote.calls.get(self._key)
        if not self.open or (token is None and (known is None or known.token is None)):
            return
        _note(self._run, (self._key, self._server), "dropped" if token is None else "kept", token=token)
        await self._run.write()


def goes_on(run: Run, command: Command) -> bool:
    """Whether a call was begun before and is to be continued: it has asked, or left a token."""
    kept = run.history.remote.calls.get(command.key)
    return kept is not None and (kept.paused or kept.token is not None)


async def resume(run: Run, command: Command, call: Prepared) -> Done | Wait | Resumption | None:
    """How a call that was begun goes on: its replies are waited for, or it is sent on; None when it cannot be."""
    server = str(call.capability.server)
    kept = run.history.remote.calls.get(command.key)
    if kept is not None and (kept.paused or kept.token is not None) and not run.sessions.is_open(kept.session_id):
        return await _closed(run, command, call, kept)
    if kept is not None and kept.token is not None and _expired(run, kept.token):
        _note(run, (command.key, server), "dropped", {"cause": "expired"})
        run.sessions.lost(server, command.key, "expired")
        kept = run.history.remote.calls[command.key]
    if kept is None or not (kept.paused or kept.token is not None):
        if command.interrupted:
            run.sessions.interrupted(server, command.key)
        return None
    if kept.paused:
        replies = await _replies(run, command, kept)
        return replies if isinstance(replies, Wait) else await _send_on(run, command, call, replies)
    if command.interrupted:
        run.sessions.interrupted(server, command.key)
    return await _send_on(run, command, call, _told(run, kept))


async def execute(
    run: Run, command: Command, call: Prepared, caller: Caller, resumption: Resumption | None
) -> CallResult | Pause:
    """Make the call, or go on with it, under its session; a Pause is durable when it is returned.

    Raises as the gateway does, and PermanentError `session_closed` or `reinitialize_required`.
    """
    server = str(call.capability.server)
    session = run.sessions.get(server)
    if session is not None and resumption is None:
        _may_begin_anew(run, command, session.status, session.cause)
    run.sessions.enter(server, command.key, "active", "opened" if session is None else "called")
    link = CallLink(run, command, call, resumption)
    ending = "ended"
    try:
        async with asyncio.timeout(None) as bound:
            run.sessions.stoppable(server, command.key, lambda: bound.reschedule(-math.inf))
            result = await run.services.gateway.execute(call, caller, link)
    except TimeoutError:
        ending = "closed"
        raise PermanentError(f"{command.name}: its session was closed while it ran", code="session_closed") from None
    except EffectError as error:
        ending = error.code
        if error.code in NOT_MADE and resumption is not None and resumption.token is not None:
            _note(run, (command.key, server), "unsent", token=resumption.token)
        elif isinstance(error, PermanentError):
            _over(run, command.key, server)
        raise
    finally:
        link.open = False
        run.sessions.leave(server, command.key, ending)
    if isinstance(result, Pause):
        await _pause(run, command, server, result, resumption is None)
    else:
        _over(run, command.key, server)
    return result


def waits_for_approval(run: Run, command: Command, call: Prepared) -> None:
    """Our own gate wants a yes for the call: its session waits with it."""
    server = call.capability.server
    if server is not None:
        run.sessions.enter(server, command.key, "approving", "approval asked for")
        run.sessions.approval(server, "pending")


def approval_ended(run: Run, command: Command, call: Prepared, state: Literal["approved", "denied"]) -> None:
    """The yes was given, or will not be."""
    server = call.capability.server
    if server is not None and run.sessions.used:
        run.sessions.approval(server, state)
        run.sessions.leave(server, command.key, state)


def continues(run: Run, command: Command, error: EffectError) -> bool:
    """Whether a call that failed on its way is still to be continued with what is kept of it."""
    kept = run.history.remote.calls.get(command.key)
    return isinstance(error, TransientError) and kept is not None and kept.token is not None


def give_up(run: Run, command: Command, call: Prepared) -> None:
    """What was kept of a call has not helped: it is left to the contract."""
    server = str(call.capability.server)
    _note(run, (command.key, server), "dropped", {"cause": "given up"})
    run.sessions.lost(server, command.key, "given up")


def cut_off(run: Run, command: Command, call: Prepared, error: EffectError) -> Done | None:
    """The outcome of a write that was ended on its way: whether it took effect is not known. None for any other."""
    may_have = error.code in _CUT or (error.code == "reinitialize_required" and command.key in run.history.unsure)
    if call.capability.side_effect != "write" or not may_have:
        return None
    return doubts.unknown(command.name, f"{error}; whether it took effect is not known", _ONE_HOP)


def sent_until(run: Run, command: Command) -> int:
    """The deadline (Unix ns) of the newest continuation of a call; 0 without one."""
    kept = run.history.remote.calls.get(command.key)
    return 0 if kept is None else kept.deadline


def _may_begin_anew(run: Run, command: Command, status: SessionStatus, cause: str) -> None:
    if status is SessionStatus.reinitialize_required and not run.services.defaults.sessions.support_reinit_on_expiry:
        raise PermanentError(
            f"{command.name} was not called: its session must begin anew ({cause}), and "
            "capability_sessions.support_reinit_on_expiry is false: set it to true, or close the session "
            "(`retinue sessions list`) and retry the run",
            code="reinitialize_required",
        )


async def _replies(run: Run, command: Command, kept: Continuation) -> dict[str, Reply] | Wait:
    """What was said to all questions of a Pause; all are asked before any is waited for."""
    replies: dict[str, Reply] = {}
    waits: list[Wait] = []
    for key, question in kept.asked:
        said = await questions.ask(run, command, key, question, kept.server)
        if isinstance(said, Wait):
            waits.append(said)
        else:
            replies[question.key] = said
    if not waits:
        return replies
    first = next((wait for wait in waits if wait.request is not None), waits[0])
    expiry = kept.token.expires_at if kept.token is not None else None
    moments = [moment for moment in (*(wait.at for wait in waits), expiry) if moment is not None]
    return Wait(first.reason, at=min(moments, default=None), request=first.request, session=kept.session_id)


def _told(run: Run, kept: Continuation) -> dict[str, Reply]:
    """What was replied before, for a call that was cut off after it had been sent on."""
    found = {question.key: questions.told(run, key) for key, question in kept.asked}
    return {key: reply for key, reply in found.items() if reply is not None}


async def _send_on(run: Run, command: Command, call: Prepared, replies: dict[str, Reply]) -> Resumption:
    """Put on record that the call is sent on; from here on a token for one use is gone."""
    kept = run.history.remote.calls[command.key]
    token = kept.token
    run.ledger.reserve(command.key, _ONE_HOP)
    deadline = run.services.now_ns() + int(call.capability.timeout * 1e9)
    facts: dict[str, Json] = {"deadline": deadline, "once": token is not None and token.once}
    run.sessions.enter(kept.server, command.key, "active", "answered" if kept.paused else "resumed")
    _note(run, (command.key, kept.server), "resumed", facts)
    await run.write()
    command.interrupted, command.doubted = False, ""
    return Resumption(token, replies)


async def _pause(run: Run, command: Command, server: str, pause: Pause, anew: bool) -> None:
    """Make a Pause durable: what is asked, by which keys, and what the call goes on with."""
    known = run.history.remote.calls.get(command.key) or Continuation("", server)
    number = 1 if anew else known.round + 1
    if number > _ROUNDS or len(pause.questions) > _QUESTIONS:
        what = f"{len(pause.questions)} questions at once" if number <= _ROUNDS else f"for the {number}th time"
        raise PermanentError(f"{command.name} asks {what} and was given up", code="asks_too_much")
    asked = known.keyed(command.key, pause.questions, anew)
    facts: dict[str, Json] = {
        "issue": known.issue + int(anew),
        "round": number,
        "asked": [key for key, _ in asked],
        "kinds": [question.kind for question in pause.questions],
    }
    content = {"questions": [question.model_dump(mode="json") for question in pause.questions]}
    _note(run, (command.key, server), "paused", facts, pause.token, content)
    run.sessions.enter(server, command.key, "asking", "asked")
    await run.write()


def _over(run: Run, key: str, server: str) -> None:
    """The call has ended: what it could be continued with is a credential that nobody needs any more."""
    kept = run.history.remote.calls.get(key)
    if kept is not None and kept.token is not None and run.sessions.is_open(kept.session_id):
        _note(run, (key, server), "dropped", {"cause": "ended"})


def _note(
    run: Run,
    place: tuple[str, str],
    event: str,
    facts: dict[str, Json] | None = None,
    token: Token | None = None,
    content: dict[str, Json] | None = None,
) -> None:
    """Put on record how a call, at (step key, server), stands."""
    key, server = place
    session = run.sessions.get(server)
    if session is None:
        raise PermanentError(f"the session with {server} was closed", code="session_closed")
    told = {"event": event, "key": key, "server": server, "session_id": session.session_id, **(facts or {})}
    if token is not None:
        told |= {"once": token.once, "expires_at": token.expires_at}
        content = {**(content or {}), "token": token.content}
    now = run.services.now_ns()
    run.note(Record(at=now, topic=CONTINUATION, by="runtime", facts=told, content=content))
    run.sessions.touch(server)


def _expired(run: Run, token: Token) -> bool:
    return token.expires_at is not None and run.services.now_ns() >= token.expires_at


async def _closed(run: Run, command: Command, call: Prepared, kept: Continuation) -> Done:
    """A person has closed the session under the call: nobody has to be told anything any more."""
    for key, question in kept.asked:
        if question.kind != "sampling" and key in run.history.intents and key not in run.history.outcomes:
            await asking.withdraw(run, key)
    error = PermanentError(f"{command.name}: its session was closed while it waited", code="session_closed")
    cut = cut_off(run, command, call, error)
    return cut or Done(result="error", error=error_info(error), usage=_ONE_HOP)
