"""A journal in memory, written run by run and frame by frame the way the engine writes; it is a source to project."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

from retinue.runs.contracts import Budget, RunRequest, Status, StopReason, Usage
from retinue.runs.journal import (
    Accepted,
    AnyEntry,
    Finished,
    Frame,
    Intent,
    Leased,
    Outcome,
    Record,
)
from retinue.runs.tracing import span_id_of

START = 1_790_000_000_000_000_000
MILLISECOND = 1_000_000
NODES = ("node-a", "node-b")


class Book:
    """A journal in memory that grows frame by frame; it is a `Source`."""

    def __init__(self, incarnation: str = "store-1") -> None:
        self.frames: list[Frame] = []
        self.name = incarnation
        self.now = START
        self.positions: dict[str, int] = {}

    async def incarnation(self) -> str:
        return self.name

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        return [frame for frame in self.frames[max(after_seq, 0) :] if frame.seq > after_seq][:limit]

    def tick(self, milliseconds: float = 1.0) -> int:
        """Let time pass; the new time in Unix ns."""
        self.now += int(milliseconds * MILLISECOND)
        return self.now

    def append(self, request: RunRequest, epoch: int, *entries: AnyEntry) -> None:
        """Store one append of a run."""
        position = self.positions.get(request.run_id, 0) + 1
        self.positions[request.run_id] = position + len(entries) - 1
        self.frames.append(Frame(len(self.frames) + 1, request.run_id, request.tenant_id, position, epoch, entries))


class Run:
    """One run that writes into a book, the way the engine writes."""

    def __init__(self, book: Book, run_id: str, target: str = "researcher", **request: Any) -> None:
        fixed = {
            "run_id": run_id,
            "trace_id": f"{abs(hash_of(request.get('root_run_id', run_id))):032x}",
            "span_id": span_id_of(run_id, "!run"),
            "tenant_id": "acme",
            "principal_id": "ana",
            "kind": "agent",
            "target": target,
            "target_version": "3",
            "root_run_id": run_id,
            "effect_scope": run_id,
            "budget": Budget(steps=8, usd=Decimal("0.50")),
        }
        self.book = book
        self.request = RunRequest.model_validate(fixed | request)
        self.epoch = 0
        self.spent = Usage()

    @property
    def run_id(self) -> str:
        return self.request.run_id

    def write(self, *entries: AnyEntry) -> None:
        self.book.append(self.request, self.epoch, *entries)

    def accept(self, value: Any = None) -> Run:
        self.write(Accepted(at=self.book.tick(), request=self.request, content=value or {"question": "since when?"}))
        return self

    def lease(self, worker: int = 0) -> Run:
        self.epoch += 1
        self.write(
            Leased(
                at=self.book.tick(),
                epoch=self.epoch,
                host_id=f"host-{worker}",
                actor_id=f"actor-{worker}" if worker else None,
                pid=4000 + worker,
                node=NODES[worker % 2],
            )
        )
        return self

    def intent(self, effect: str, name: str, key: str, content: Any = None, **facts: Any) -> Intent:
        reserved = Usage(input_tokens=100, micros=500) if effect == "model" else Usage()
        return Intent.model_validate(
            {
                "at": self.book.tick(),
                "key": key,
                "effect": effect,
                "name": name,
                "digest": f"{hash_of(key):x}",
                "reserved": reserved,
                "facts": facts,
            }
        ).model_copy(update={"content": content})

    def outcome(self, intent: Intent, content: Any = None, result: str = "ok", **more: Any) -> Outcome:
        usage = more.pop("usage", Usage())
        self.spent += usage
        return Outcome.model_validate(
            {
                "at": self.book.tick(7.5),
                "key": intent.key,
                "effect": intent.effect,
                "name": intent.name,
                "activation": more.pop("activation", 1),
                "result": result,
                "error": more.pop("error", None),
                "usage": usage,
                "facts": more,
            }
        ).model_copy(update={"content": content})

    def record(self, topic: str, content: Any = None, **facts: Any) -> Record:
        return Record(at=self.book.tick(0.1), topic=topic, facts=facts, content=content)

    def context(self, turn: int, messages: list[dict[str, Any]]) -> Record:
        items = [
            {"source": "instructions:research/v3", "kind": "instructions", "tokens": 40, "included": True},
            {
                "source": f"observation:o{turn}",
                "kind": "observation",
                "tokens": 900,
                "included": False,
                "reason": "over the limit",
                "fresh_at": self.book.now,
            },
        ]
        return self.record("context", {"messages": messages}, turn=turn, tokens=340, limit=400, items=items)

    def think(self, turn: int, calls: list[dict[str, Any]], text: str = "", together: bool = True) -> None:
        """One model turn: context, gate, model call, decision."""
        messages = [
            {"role": "system", "content": "Quote your evidence."},
            {"role": "user", "content": f"since when? (turn {turn})"},
        ]
        gate = self.record(
            "policy", None, stage="model", resource="builtin:extractive", turn=turn, decision=verdict("allow")
        )
        asked = self.intent(
            "model",
            "builtin:extractive",
            f"{turn}/model#0",
            {"messages": messages, "output_schema": None},
            model="builtin:extractive",
            provider="retinue",
            turn=turn,
            prompt="research/v3",
            parameters={"temperature": 0.0, "seed": 7, "max_tokens": 512},
            tools=["search", "pricing_tool"],
        )
        head: list[AnyEntry] = [self.context(turn, messages), gate, asked]
        if not together:
            self.write(*head)
            head = []
        said = self.outcome(
            asked,
            {"text": text, "tool_calls": calls, "raw": {"choices": [{"text": text}]}},
            usage=Usage(steps=1, input_tokens=120 + turn, output_tokens=30, micros=1_250),
            model="extractive-1",
            provider="retinue",
            finish_reason="tool_calls" if calls else "stop",
            latency_ms=6.25,
            first_token_ms=2.0,
            priced=True,
            response_id=f"reply-{turn}",
        )
        names = [call["name"] for call in calls]
        kind = "tool_calls" if calls else "answer"
        decided = self.record("decision", {"type": kind, "text": text}, turn=turn, type=kind, tools=names)
        self.write(*head, said, decided)

    def call(self, turn: int, name: str, arguments: dict[str, Any], value: Any, **how: Any) -> None:
        """One capability call with its observation; `how`: result, error, side_effect, split."""
        split = how.pop("split", False)
        key = f"{turn}/{name}#0"
        asked = self.intent(
            "call",
            name,
            key,
            arguments,
            version="1",
            side_effect=how.pop("side_effect", "read"),
            idempotency="at_most_once",
            source="native",
            call_id=f"call-{turn}-{name}",
            turn=turn,
            gate=verdict("allow"),
            deadline=self.book.now + 30_000 * MILLISECOND,
        )
        if split:
            self.write(asked)
        done = self.outcome(asked, value, usage=Usage(hops=1), size=len(str(value)), cut=False, micros=420, **how)
        seen = self.record(
            "observation",
            {"summary": f"{name} returned", "data": value},
            id=f"o{turn}",
            kind="tool",
            result="ok" if done.result == "ok" else "error",
            name=name,
            turn=turn,
            call_id=f"call-{turn}-{name}",
        )
        self.write(*(() if split else (asked,)), done, seen)

    def finish(self, status: Status, reason: StopReason, output: Any = None, **more: Any) -> None:
        self.write(
            Finished(
                at=self.book.tick(),
                status=status,
                reason=reason,
                usage=more.pop("usage", self.spent),
                error=more.pop("error", None),
                facts=more,
                content=output,
            )
        )


def verdict(outcome: str, reason: str = "rule says so") -> dict[str, Any]:
    """A GateDecision as the journal holds it."""
    rules = [{"rule": "reads", "outcome": outcome, "reason": reason}]
    return {"outcome": outcome, "reason": reason, "rules": rules, "digest": "p1", "micros": 12}


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    return random.Random(text).getrandbits(120)
