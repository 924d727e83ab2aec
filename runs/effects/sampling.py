"""Questions of servers to a model: a model call of the run under the step, with gate, budget and journal.

What cannot be put to a model, what the gate refuses and what fails for good is declined. Knows no server.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.effects import models
from retinue.runs.effects.run import Run
from retinue.runs.identity import SAMPLED, digest_of
from retinue.runs.journal import Outcome
from retinue.runs.messages import Message, ModelRequest
from retinue.runs.sessions import Question, Reply
from retinue.runs.steps import Command, Done, Wait, cut_short, outcome_of

_MOST = 4_096
"""Tokens that a server may have a model say."""
_PARAMETERS = {"temperature": "temperature", "stopSequences": "stop"}
_STOPS = {"stop": "endTurn", "length": "maxTokens"}


async def ask(run: Run, command: Command, key: str, question: Question) -> Reply | Wait:
    """What a model says to the messages of a server, or the wait for its next try."""
    request = _request(run, question.asked)
    if request is None:
        return Reply(action="decline")
    step = Command(
        key=key,
        effect="model",
        name=request.model,
        digest=digest_of(question.asked),
        arguments=question.asked,
        future=command.future,
        options={"request": request, "prompt": None},
        interrupted=run.history.interrupted(key),
    )
    ended = await models.perform(run, step)
    if isinstance(ended, Wait):
        return ended
    return await _settled(run, step, ended)


async def _settled(run: Run, step: Command, ended: Done) -> Reply:
    outcome = outcome_of(step, ended, 0, run.services.now_ns())
    run.ledger.settle(step.key, ended.usage)
    await run.write(outcome)
    return reply(outcome)


def let_go(run: Run, key: str) -> None:
    """A call has ended: what is held for models that it asked and did not hear is spent, or free again."""
    for asked in sorted(each for each in run.history.begun if each.startswith(f"{key}{SAMPLED}")):
        cut = cut_short(run.history.intents[asked], run.services.now_ns())
        run.ledger.settle(asked, cut.usage)
        run.note(cut)


def reply(outcome: Outcome) -> Reply:
    """The outcome of the model call as the server is told it."""
    if outcome.result != "ok":
        return Reply(action="decline")
    said = models.reply_of(outcome)
    content: dict[str, Json] = {
        "role": "assistant",
        "content": {"type": "text", "text": said.text},
        "model": said.model,
        "stopReason": _STOPS.get(said.finish_reason, "endTurn"),
    }
    return Reply(action="accept", content=content)


def _request(run: Run, asked: dict[str, Json]) -> ModelRequest | None:
    """The model call that is asked for; None when it has anything but text, or tools."""
    told: list[Message] = []
    if isinstance(system := asked.get("systemPrompt"), str):
        told.append(Message(role="system", content=system))
    for message in asked.get("messages") or ():
        text = _text(message)
        if text is None or asked.get("tools"):
            return None
        told.append(Message(role="assistant" if message.get("role") == "assistant" else "user", content=text))
    if not told:
        return None
    wanted = asked.get("maxTokens")
    return ModelRequest(
        model=run.request.model or run.services.defaults.model,
        messages=tuple(told),
        parameters={ours: asked[name] for name, ours in _PARAMETERS.items() if asked.get(name) is not None},
        max_tokens=min(wanted, _MOST) if isinstance(wanted, int) and wanted > 0 else 1024,
        timeout=run.services.defaults.model_timeout,
        run_id=run.request.run_id,
        agent=run.request.target,
        input_id=run.request.input_id,
        input_text=told[-1].content,
    )


def _text(message: Any) -> str | None:
    """The words of a message; None when it is not made of words."""
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(map(str, texts)) if len(texts) == len(parts) and texts else None
