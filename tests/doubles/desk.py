"""A server of capabilities that outlives its callers: what it has done stands in the outside log, whoever dies.

It speaks as the wire does, through the link: `desk__order` asks in two rounds and goes on with states that must not be
used twice, `desk__brew` is a task that is polled, `desk__think` asks a model, `desk__note` asks nothing. Knows no
journal.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.crash.outside import OUTSIDE

from retinue.runs.capabilities import Caller, CallResult, Capability
from retinue.runs.contracts import Json
from retinue.runs.errors import TransientError
from retinue.runs.sessions import Link, Pause, Question, Resumption, Token, Wire
from retinue.sessions.catalog import Arguments, Invocation

WIRE = Wire(server="desk", transport="http", protocol="2026-07-28", pins="p1")
SIZE = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 1, "maximum": 9}, "gift": {"type": "boolean"}},
    "required": ["size"],
}
COLOUR = {"type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}}}
TERMS = "https://desk.example/terms"
Work = Callable[[Arguments, Caller, Link], Awaitable[object]]


@dataclass(frozen=True)
class Remote:
    """Implements `sessions.catalog.Tool` for a tool of the desk."""

    capability: Capability
    work: Work
    origin: str = "desk"

    def accept(self, arguments: Arguments) -> Arguments:
        return arguments

    def invoke(self, arguments: Arguments, caller: Caller, link: Link | None) -> Invocation:
        assert link is not None, "a call to a server has a link"
        return Invocation(lambda: self.work(arguments, caller, link), blocking=False)

    def invoke_probe(self, arguments: Arguments, caller: Caller) -> Invocation | None:
        return None

    def shape(self, outcome: object) -> CallResult | Pause:
        return outcome if isinstance(outcome, Pause) else CallResult(outcome, len(json.dumps(outcome)))


def remote(name: str, work: Work, **contract: Any) -> Remote:
    """A tool of the desk under a contract; the careful one unless said otherwise."""
    schema: dict[str, Json] = {"type": "object", "properties": {"text": {"type": "string"}}}
    return Remote(Capability(name=name, description=name, input_schema=schema, source="mcp:desk", **contract), work)


def form(key: str, message: str, schema: Json) -> Question:
    """A question with a form."""
    return Question(key=key, kind="form", message=message, asked={"schema": schema})


def once(going: Resumption) -> dict[str, Any]:
    """The state that a call goes on with. Used twice, it is done twice: that is what the log tells."""
    if going.token is None:
        raise TransientError("the desk knows nothing of this call", code="lost")
    state = json.dumps(going.token.content, sort_keys=True)
    OUTSIDE.say("used", state, "desk", "again" if OUTSIDE.has("used", state) else "")
    return going.token.content


async def order(arguments: Arguments, caller: Caller, link: Link) -> object:
    """Two questions, then one more, then it is done."""
    link.opened(WIRE)
    going, text = link.resumption, str(arguments["text"])
    if going is None:
        url = Question(key="terms", kind="url", message="Agree.", asked={"url": TERMS, "id": "t1"})
        return Pause((form("size", f"How big is {text}?", SIZE), url), _state(text, {}))
    state = once(going)
    if any(reply.action != "accept" for reply in going.replies.values()):
        return {"order": text, "declined": sorted(key for key, r in going.replies.items() if r.action != "accept")}
    said = state["said"] | {key: reply.content for key, reply in going.replies.items()}
    if "colour" not in said:
        link.progress(0.5, 1.0, f"{text} is half done")
        return Pause((form("colour", "Which colour?", COLOUR),), _state(text, said))
    OUTSIDE.say("filed", caller.key, "desk__order", text)
    return {"order": text, "said": said}


def _state(text: str, said: Json) -> Token:
    """Every state is another one: the server counts what it gave away."""
    number = str(sum(1 for _ in _given()))
    OUTSIDE.say("given", number, "desk")
    return Token({"kind": "mrtr", "text": text, "said": said, "number": number}, once=True)


def _given() -> list[str]:
    lines = (OUTSIDE.folder / "outside.jsonl").read_text().splitlines() if OUTSIDE.has("given", "0") else []
    return [line for line in lines if json.loads(line)[1] == "given"]


async def brew(arguments: Arguments, caller: Caller, link: Link) -> object:
    """A task: begun once, then polled by whoever has its id."""
    link.opened(WIRE)
    text = str(arguments["text"])
    if link.resumption is None or link.resumption.token is None:
        OUTSIDE.say("filed", caller.key, "desk__brew", text)
        await link.keep(Token({"kind": "task", "task_id": f"{caller.key}-{text}"}))
        await asyncio.sleep(0.01)
    return f"brewed {text}"


async def think(arguments: Arguments, caller: Caller, link: Link) -> object:
    """Asks a model through the run."""
    link.opened(WIRE)
    text, going = str(arguments["text"]), link.resumption
    if going is None:
        asked: dict[str, Json] = {
            "messages": [{"role": "user", "content": {"type": "text", "text": text}}],
            "maxTokens": 50,
        }
        question = Question(key="thought", kind="sampling", message="think", asked=asked)
        return Pause((question,), Token({"kind": "mrtr", "text": text, "said": {}}))
    reply = going.replies["thought"]
    return {"action": reply.action, "said": reply.content["content"]["text"] if reply.content else None}


async def note(arguments: Arguments, caller: Caller, link: Link) -> object:
    """Asks nothing."""
    link.opened(WIRE)
    OUTSIDE.say("filed", caller.key, "desk__note", str(arguments["text"]))
    return f"noted {arguments['text']}"


ORDER = remote("desk__order", order, idempotency="idempotent")
BREW = remote("desk__brew", brew, idempotency="idempotent")
THINK = remote("desk__think", think, side_effect="read")
NOTE = remote("desk__note", note, idempotency="idempotent")
TOOLS = (ORDER, BREW, THINK, NOTE)
