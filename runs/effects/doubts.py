"""Doubts: an effect may have happened though nobody saw it end. The policy says who resolves it, and how.

`allow` leaves it to the contract: a reconcilable call is probed, an idempotent one repeated with its key.
`approval_required` leaves it to a person, `deny` to nobody: the outcome is `unknown`. Where no rule speaks, a
contract that can resolve a doubt does, and a person is asked about the others. Never a second write in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retinue.runs.capabilities import Prepared
from retinue.runs.contracts import ErrorInfo, Json, Usage
from retinue.runs.effects import asking, gates
from retinue.runs.effects.run import Run
from retinue.runs.identity import DOUBT
from retinue.runs.journal import Record
from retinue.runs.steps import Command, Done, Wait

_WAYS = 'answer `happened` (or {"happened": RESULT}), `absent` to have it done now with the same key, or `fail`'
"""What a person may say; `retinue inbox` has a command for each."""

Way = Literal["contract", "person", "nobody"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said of an effect in doubt, and by whom."""

    verdict: Literal["happened", "absent", "fail"]
    by: str
    value: Json = None


def way(run: Run, command: Command, call: Prepared, cause: str) -> Way:
    """Who is to resolve a doubt about a call; `cause` is `crash`, `failure` or `no_probe`."""
    if _question(run, command) in run.history.intents:
        return "person"
    capability = call.capability
    contract = capability.idempotency if cause != "no_probe" else "at_most_once"
    decision = gates.decide(run, gates.Concern("doubt", capability.name, {"cause": cause}, command.key, contract))
    if decision.outcome == "approval_required":
        return "person"
    if decision.outcome == "deny" and decision.rules:
        return "nobody"
    if contract != "at_most_once":
        return "contract"
    return "nobody" if decision.outcome == "allow" else "person"


async def ask(run: Run, command: Command, what: str, about: str = "") -> Said | Wait:
    """Ask a person whether `what` has happened, shown what it is `about`; an answer that is none of the ways is
    taken for `fail`."""
    key = _question(run, command)
    told = run.history.outcomes.get(key)
    if told is not None:
        return _verdict(told.facts.get("status"), told.content, str(told.facts.get("by")))
    if key not in run.history.intents:
        _record(run, command, what)
        question = "\n".join(filter(None, (what, about, f"Has it happened? Find out, then {_WAYS}")))
        return await asking.put(run, command, key, ("input", question, {"doubt": command.name}))
    answer = await asking.answered(run, key)
    if isinstance(answer, Wait):
        return answer
    asking.record_answer(run, key, answer)
    return _verdict(answer.status, answer.value, answer.by)


def unknown(name: str, message: str, usage: Usage) -> Done:
    """The outcome of an effect that stays in doubt."""
    error = ErrorInfo(reason="side_effect_unknown", code="unknown", message=message)
    return Done(result="unknown", error=error, usage=usage, facts={"capability": name})


def _record(run: Run, command: Command, what: str) -> None:
    facts: dict[str, Json] = {"kind": "system", "name": "side_effect_unknown", "key": command.key, "result": "unknown"}
    run.note(Record(at=run.services.now_ns(), topic="observation", by="runtime", facts=facts, content={"data": what}))


def _question(run: Run, command: Command) -> str:
    """The key of the question about the newest doubt: who said `absent` spoke of the try before, not of the next."""
    key = command.key + DOUBT
    while (told := run.history.outcomes.get(key)) is not None:
        if _verdict(told.facts.get("status"), told.content, "").verdict != "absent":
            return key
        key += DOUBT
    return key


def _verdict(status: Json, value: Json, by: str) -> Said:
    return _read(value, by) if status == "answered" else Said("fail", "nobody in time")


def _read(value: Json, by: str) -> Said:
    """An answer as a verdict; what cannot be read settles nothing and counts as `fail`."""
    if isinstance(value, dict) and "happened" in value:
        return Said("happened", by, value["happened"])
    word = str(value).strip().lower()
    if word == "happened":
        return Said("happened", by)
    return Said("absent", by) if word == "absent" else Said("fail", by)
