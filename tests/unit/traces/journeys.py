"""Journals to project: realistic runs, deterministic for a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from tests.unit.traces.books import MILLISECOND, Book, Run, verdict

from retinue.runs.contracts import Amendment, ErrorInfo, Json, Status, StopReason, Usage
from retinue.runs.journal import (
    Attempt,
    Checkpoint,
    Parked,
    Record,
    Retried,
)
from retinue.runs.tracing import span_id_of


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


def boxing(book: Book, run_id: str, worker: int, **request: Any) -> Iterable[None]:
    """A run that works in a sandbox, whose owner dies during a program and whose program reaches for a host."""
    run = Run(book, run_id, target="coder", **request).accept().lease(worker)
    yield
    state: dict[str, Json] = {
        "sandbox_id": f"box-{run_id}",
        "name": "work",
        "manifest": "coder",
        "manifest_version": "m1",
        "profile": "build",
        "profile_digest": "p1",
        "backend": "bubblewrap",
        "confinement": {"network": "enforced"},
        "status": "open",
        "generation": 0,
        "head_generation": 0,
        "base_snapshot_id": "s1-a",
        "head_snapshot_id": "s1-a",
        "entries": 3,
        "bytes": 40,
        "tier": "copy",
        "node": "node-b",
        "epoch": 1,
        "can_resume": True,
        "can_snapshot": True,
        "must_recreate": False,
        "omitted": ["cache"],
        "forked_from": "box-0",
        "opened_at": book.now,
        "closed_at": None,
    }
    known = {"place": f"box-{run_id}", **state}
    key, argv = "0/sandbox.exec#0", ["curl", "-u", "me:hunter2hunter2", "https://files.example"]
    asked = run.intent(
        "call", "sandbox.exec", key, {"argv": argv, "cwd": "src"}, source="sandbox", turn=0, call_id="c1"
    )
    run.write(run.record("sandbox", None, event="opened", cause="opened from s1-a", key=key, **known), asked)
    yield
    run.lease(worker + 1)
    lost = {"op": "sandbox.exec", "began_at": asked.at, "cause": "sandbox.exec was cut off"}
    wanted = {"asked": {"facts": {"host": "files.example", "port": 443}}, "decision": verdict("deny", "not that one")}
    run.write(
        run.record("sandbox", None, event="lost_exec", key=key, **known, **lost),
        run.record("policy", None, stage="egress", resource="coder", key=key, **wanted),
        run.record("output", {"stdout": "what it wrote"}, key=key, name="output", place=known["place"], bytes={}),
    )
    yield
    value = {"exit_code": 7, "signal": None, "stdout": "what it wrote", "stderr": "", "limits": ["timeout"]}
    value |= {"stdout_bytes": 13, "stderr_bytes": 0, "micros": 1_500}
    made = {"sandbox": known["place"], "generation": 1, "replayable": False}
    run.write(run.outcome(asked, value, **made))
    error = ErrorInfo(reason="tool_failure", code="lost_exec", message="in flight")
    again = run.intent("call", "shell", "1/shell#0", {"command": "make"}, source="sandbox", turn=1)
    killed = {**value, "exit_code": None, "signal": 9}
    run.write(again, run.outcome(again, None, "error", error=error, sandbox=known["place"]))
    last = run.intent("call", "python", "2/python#0", {"code": "print(1)"}, source="sandbox", turn=2)
    run.write(last, run.outcome(last, killed, **made))
    ended = {**known, "status": "closed", "generation": 2, "closed_at": book.now}
    run.write(run.record("sandbox", None, event="closed", cause="the run ended", key=None, **ended))
    run.finish(Status.completed, StopReason.success, "done")
    yield
