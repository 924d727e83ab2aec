"""Journals to project: realistic runs, built frame by frame, deterministic for a seed; and a source over them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from retinue.runs.contracts import Amendment, Budget, ErrorInfo, Json, RunRequest, Status, StopReason, Usage
from retinue.runs.journal import (
    Accepted,
    AnyEntry,
    Attempt,
    Checkpoint,
    Finished,
    Frame,
    Intent,
    Leased,
    Outcome,
    Parked,
    Record,
    Retried,
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


def remember(run: Run, book: Book) -> None:
    """A memory that is kept, one that is refused, and one that is forgotten."""
    place = {"side_effect": "write", "scope": "agent", "owner": "clerk", "call_id": "call-m", "turn": 2}
    kept = {"content": "since 2019", "key": "since", "tags": ["years"]}
    wanted = run.intent("remember", "remember", "2/remember#0", kept, **place)
    later = book.now + 86_400_000 * MILLISECOND
    run.write(wanted, run.outcome(wanted, {"memory_id": "a1"}, memory_id="a1", expires_at=later))
    error = ErrorInfo(reason="policy_denied", code="denied", message="no rule permits it")
    again = run.intent("remember", "remember", "2/remember#1", kept, **place)
    run.write(run.outcome(again, None, "refused", error=error))
    gone = run.intent("forget", "forget", "2/forget#0", {"name": "since"}, **place)
    run.write(gone, run.outcome(gone, {"forgotten": 1}, forgotten=1))


def answering(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run that searches, prices and answers; yields wherever others may write."""
    run = Run(book, run_id, **request).accept()
    yield
    run.lease(worker)
    yield
    run.think(0, [{"id": "c1", "name": "search", "arguments": {"query": "since"}}], together=False)
    yield
    run.call(0, "search", {"query": "since", "k": 5}, [{"document": "doc-1", "quote": "since 2019"}])
    run.write(Checkpoint(at=book.tick(), name="turn", number=1, spent=run.spent, content={"turn": 1}))
    yield
    run.think(1, [{"id": "c2", "name": "pricing_tool", "arguments": {"amount": 12_000}}])
    run.call(1, "pricing_tool", {"amount": 12_000 + worker, "currency": "EUR"}, {"price": "1.5"}, split=True)
    yield
    run.think(2, [], text="since 2019")
    run.write(*continued(run))
    stages: dict[str, Json] = {"stage": "result", "stages": ["raw", "parse", "rules", "confidence", "result"]}
    stages |= {"checks": {"quotes": [1, 2], "rules": [1, 2]}, "confidence": 0.5, "rules": ["polite"]}
    warned = {"warnings": ["polite: no please"]}
    checked = run.record("validation", warned, turn=2, what="output", ok=True, errors=[], **stages)
    decided = {"stage": "confidence", "verdict": "approved", "by": "ben"}
    run.write(checked, run.record("validation", None, what="review", ok=True, errors=[], **decided))
    run.write(run.record("stage", None, stage="answer", turn=2))
    run.finish(
        Status.completed,
        StopReason.success,
        {"answer": "2019", "citations": ["doc-1"]},
        confidence=0.8,
        follow_ups=["remember doc-1", {"target": "memory"}],
    )
    yield


def continued(run: Run) -> tuple[Record, ...]:
    """What a long run records of its debts and of its shortened history, as the engine writes it."""
    tokens = {"tokens_before": 900, "tokens_after": 300, "limit": 1_000, "first_turn": 0, "last_turn": 1}
    owed = {"id": "b1", "by": "model", "since": 1}
    return (
        run.record("obligation", {"text": "say it"}, turn=1, event="added", settled_by=None, **owed),
        run.record("obligation", {"text": "say it"}, turn=2, event="settled", settled_by="o2", **owed),
        run.record("compaction", {"dropped": ["a1", "b2"], "recap": {"first": 0}}, turn=2, number=1, count=2, **tokens),
        run.record("reset", {"goal": "go on"}, turn=2, number=1, by="policy", count=4, obligations=1),
    )


def failing(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run whose tool fails after retries, on two hosts."""
    run = Run(book, run_id, target="pricer", **request).accept().lease(worker)
    yield
    run.think(0, [{"id": "c1", "name": "pricing_tool", "arguments": {"amount": 3}}])
    asked = run.intent("call", "pricing_tool", "0/pricing_tool#0", {"amount": 3}, side_effect="read", turn=0)
    error = ErrorInfo(reason="tool_failure", code="timeout", message="no answer from password=hunter2hunter2")
    again = book.tick()
    charged = Usage(micros=300)
    run.spent += charged
    run.write(asked, Attempt(at=again, key=asked.key, number=1, error=error, not_before=again, charged=charged))
    yield
    run.write(
        Parked(at=book.tick(), status=Status.waiting, reason=StopReason.retry_later, waits=(asked.key,), wake_at=again)
    )
    yield
    run.lease(worker + 1)
    run.write(run.outcome(asked, None, "error", error=error, turn=0))
    bad = run.record("validation", None, turn=0, what="decision", ok=False, errors=["no such tool"])
    denied = run.record("policy", None, stage="output", resource="pricer", turn=0, decision=verdict("deny", "no price"))
    run.write(bad, denied, run.record("anything", {"note": "free"}, name="custom", level=3))
    yield
    run.finish(Status.failed, StopReason.tool_failure, error=error)
    yield


def retrying(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run that failed, was retried on another version, and completed."""
    run = Run(book, run_id, target="pricer", queue="mail", forked_from="run-0@0/model#0", **request).accept().lease()
    asked = run.intent("call", "pricing_tool", "0/pricing_tool#0", {"amount": 3}, side_effect="read", turn=0)
    error = ErrorInfo(reason="tool_failure", code="raised", message="no price")
    run.write(asked, run.outcome(asked, None, "error", error=error, turn=0))
    run.finish(Status.failed, StopReason.tool_failure, error=error)
    yield
    run.epoch += 1
    change = Amendment(since=book.tick(), version="4")
    run.write(Retried(at=book.now, by="ben", keep=0, again=asked.key, amendment=change))
    run.lease(worker)
    run.write(asked, run.outcome(asked, {"price": 3}, turn=0))
    run.finish(Status.completed, StopReason.success, {"price": 3})
    yield


def asking(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run that needs an approval, gets it, writes, and is canceled with steps in flight."""
    run = Run(book, run_id, target="clerk", session_id="talk-1", **request).accept().lease(worker)
    yield
    run.think(0, [{"id": "c1", "name": "open_ticket", "arguments": {"subject": "x"}}])
    question = run.intent(
        "approval",
        "open_ticket",
        "0/open_ticket#0!approval",
        {"prompt": "May clerk call open_ticket?"},
        request_id=f"q-{run_id}",
    )
    waits = Parked(
        at=book.tick(), status=Status.waiting_for_approval, reason=StopReason.approval_required, waits=(question.key,)
    )
    run.write(question, waits)
    yield
    run.lease(worker)
    yes = run.outcome(question, None, status="approved", by="olga", request_id=f"q-{run_id}", activation=0)
    run.write(yes)
    edited = {"by": "olga", "asked": "a" * 32, "called": "b" * 32}
    run.call(0, "open_ticket", {"subject": "x"}, {"id": 7}, side_effect="write", edited=edited)
    yield
    signal = run.intent("event", "nudge", "0/event#0")
    run.write(signal, run.outcome(signal, {"hello": "there"}, event=1))
    run.write(run.record("handoff", {"goal": "go on"}, **{"from": "clerk", "to": "manager_agent"}))
    letter = run.record(
        "dead_letter", {"line": "{half"}, source="in.jsonl", line=3, reason="unreadable", message="no JSON"
    )
    left = run.intent("call", "search", "1/search#0", {"query": "y"}, side_effect="read")
    risky = run.intent("call", "open_ticket", "1/open_ticket#0", {"subject": "z"}, side_effect="write")
    once = run.intent("step", "post", "1/post#0", ["z"], repeatable=False)
    run.write(letter, left, risky, once, run.intent("timer", "sleep", "1/sleep#0"))
    yield
    run.finish(Status.canceled, StopReason.canceled)
    yield


def refusing(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run whose model call and tool call the gate refuses, and that asks a person what to do."""
    own = {
        "agent_instance_id": "desk-1",
        "input_id": "row-7",
        "model": "openai:gpt-x",
        "deadline": book.now + 60_000 * MILLISECOND,
        "idempotency_key": "job-1:row-7",
    }
    run = Run(book, run_id, target="clerk", **own, **request).accept().lease(worker)
    yield
    asked = run.intent(
        "model", "openai:gpt-x", "0/model#0", {"messages": [], "output_schema": {"type": "object"}}, turn=0
    )
    no = ErrorInfo(reason="policy_denied", code="denied", message="model openai:gpt-x: not for this tenant")
    run.write(asked, run.outcome(asked, None, "refused", error=no))
    tool = run.intent("call", "delete_all", "0/delete_all#0")
    refused = run.outcome(tool, None, "refused", error=no, gate=verdict("deny", "never"), turn=0, call_id="c9")
    run.write(refused)
    yield
    question = run.intent("input", "question", "ask#0", "What now?", request_id=f"i-{run_id}")
    run.write(question)
    yield
    run.write(run.outcome(question, "give up", status="answered", by="olga", request_id=f"i-{run_id}"))
    run.write(run.record("handoff", None, **{"from": "clerk", "to": "desk", "why": "refused"}))
    run.finish(Status.completed, StopReason.handoff, {"answer": None}, to="desk")
    yield


def visiting(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run whose call asks a person through a server."""
    run = Run(book, run_id, target="clerk", **request).accept().lease(worker)
    yield
    key, wire = "0/desk__order#0", {"server": "desk", "transport": "http", "scope": "worker", "protocol": "2025-11-25"}
    wire |= {"session_id": "wire-7", "pins": "p1", "expires_at": book.now + MILLISECOND, "expires_from": "the task"}
    same = {"session_id": f"s-{run_id}", "server": "desk", "number": 0, "key": key, "opened_at": book.now, "wire": wire}
    last = {**same, "key": None, "changed_at": book.now, "closed_at": book.now, "approval": "approved"}
    order = run.intent("call", "desk__order", key, {"text": "a cup"}, side_effect="write", source="mcp:desk")
    asked = {"event": "paused", "issue": 1, "round": 1, "kinds": ["form"], "once": True, "expires_at": book.now}
    content = {"questions": [{"key": "size"}], "token": {"kind": "mrtr", "requestState": "sealed"}}
    known = {"key": key, "server": "desk", "session_id": f"s-{run_id}"}
    question = run.intent(
        "input",
        "desk__order",
        f"{key}!elicited:d1#0",
        {"prompt": "desk asks: how big?", "asked": {"kind": "form", "schema": {}}},
        request_id=f"e-{run_id}",
    )
    run.write(
        order,
        run.record("session", None, before=None, status="in_progress", cause="opened", approval="", **same),
        run.record("continuation", content, **known, **asked),
        run.record("session", None, before="in_progress", status="waiting_for_input", cause="asked", **same),
        question,
    )
    yield
    said = {"action": "accept", "content": {"size": 3}}
    run.write(
        run.outcome(question, said, status="answered", by="olga", request_id=f"e-{run_id}", activation=0),
        run.record("continuation", None, **known, event="resumed", once=True, deadline=book.now),
        run.outcome(order, "done", source="mcp:desk"),
        run.record("session", None, before="waiting_for_input", status="closed", cause="the run ended", **last),
    )
    run.finish(Status.completed, StopReason.success, "done")
    yield


def leading(book: Book, run_id: str, worker: int, others: list[Iterable[None]], **request: Any) -> Iterable[None]:
    """A workflow with three children on two workers."""
    run = Run(book, run_id, target="research", kind="workflow", **request).accept().lease(0)
    yield
    fan = run.intent("children", "researcher", "map#0", None, target_version="3", join={"need": None})
    run.write(fan, Parked(at=book.tick(), status=Status.waiting, reason=StopReason.child, waits=(fan.key,)))
    child = {"parent_run_id": run_id, "root_run_id": run_id, "parent_span_id": span_id_of(run_id, fan.key)}
    more = {"group_key": fan.key, "depth": 1, "pool": "workers", "job_id": run_id}
    family = [
        answering(book, f"{run_id}-child-{index}", 1 + index % 2, group_index=index, **child, **more)
        for index in range(3)
    ]
    others += family
    yield
    while any(f"{run_id}-child-{index}" not in ended(book) for index in range(3)):
        yield
    run.lease(0)
    run.write(run.outcome(fan, [{"index": 0, "value": "2019"}], total=3, ok=3, failed=0, rejected=0))
    remember(run, book)
    run.finish(
        Status.completed, StopReason.success, {"answers": 3}, usage=Usage(steps=9, input_tokens=363, micros=11_250)
    )
    yield


def ended(book: Book) -> set[str]:
    """Runs that have finished."""
    return {frame.run_id for frame in book.frames if frame.entries[-1].kind == "finished"}


def tale(runs: int, seed: int = 1, book: Book | None = None) -> Book:
    """A book of interleaved runs of every kind."""
    book = book or Book()
    chance = random.Random(seed)
    kinds: list[Callable[..., Iterable[None]]] = [answering, failing, asking, refusing]
    going: list[Any] = []
    for number in range(runs):
        run_id = f"run-{seed}-{number:05d}"
        if number % 5 == 4:
            going.append(leading(book, run_id, 0, going))
        else:
            going.append(kinds[number % 5](book, run_id, number % 3))
    steppers = going
    while steppers:
        place = chance.randrange(len(steppers))
        try:
            next(iter(steppers[place]))
        except StopIteration:
            steppers.pop(place)
    return book
