"""Questions of servers: put into the inbox of the run, or to a model, and turned into replies.

A question is a step of its own, so it is asked once and answered once whatever dies; what nobody answers in time is
canceled. Knows neither tokens nor sessions' statuses.
"""

from __future__ import annotations

from retinue.runs.contracts import Json
from retinue.runs.effects import asking, sampling
from retinue.runs.effects.run import Run
from retinue.runs.journal import Outcome
from retinue.runs.sessions import Question, Reply
from retinue.runs.steps import Command, Wait

_LONGEST = 4_000
_ACTIONS = ("accept", "decline", "cancel")


async def ask(run: Run, command: Command, key: str, question: Question, server: str) -> Reply | Wait:
    """The reply to a question, or the wait for it; asked when it was not asked before."""
    known = told(run, key)
    if known is not None:
        return known
    if question.kind == "sampling":
        return await sampling.ask(run, command, key, question)
    if key not in run.history.intents:
        facts: dict[str, Json] = {"capability": command.name, "server": server, "form": question.kind}
        asked = {"kind": question.kind, **question.asked}
        return await asking.put(
            run, command, key, ("input", _prompt(question, server), facts), content={"asked": asked}
        )
    answer = await asking.answered(run, key)
    if isinstance(answer, Wait):
        return answer
    run.note(
        Outcome(
            at=answer.at,
            content=answer.value,
            key=key,
            effect="input",
            name=command.name,
            activation=0,
            facts={"status": answer.status, "by": answer.by, "request_id": answer.request_id},
        )
    )
    return _reply(answer.status, answer.value)


def told(run: Run, key: str) -> Reply | None:
    """What was replied to a question, if it was."""
    outcome = run.history.outcomes.get(key)
    if outcome is None:
        return None
    if outcome.effect == "model":
        return sampling.reply(outcome)
    return _reply(outcome.facts.get("status"), outcome.content)


def _reply(status: Json, value: Json) -> Reply:
    """An answer as the server is told it: `{"action", "content"}`, or plain values, which are accepted."""
    if status != "answered":
        return Reply(action="cancel")
    if isinstance(value, dict) and value.get("action") in _ACTIONS and value.keys() <= {"action", "content"}:
        return Reply(action=value["action"], content=value.get("content"))
    return Reply(action="accept", content=value)


def _prompt(question: Question, server: str) -> str:
    """What a person is shown. The words are the server's: nothing in them may steer a terminal."""
    said = "".join(sign for sign in question.message if sign.isprintable() or sign == "\n")
    lines = [f"{server} asks: {said[:_LONGEST]}"]
    if question.kind == "url":
        address = "".join(sign for sign in str(question.asked.get("url", "")) if sign.isprintable())
        lines.append(f"open {address} in a browser, then say that it is done")
    return "\n".join(lines)
