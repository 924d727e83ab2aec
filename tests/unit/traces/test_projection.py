"""The projection: what rows a journal gives, and that neither batches nor restarts change them."""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.traces.books import Book, Run, verdict
from tests.unit.traces.conftest import Contents, Open, contents, drain
from tests.unit.traces.journeys import answering, asking, boxing, failing, retrying, tale, visiting

from retinue.runs.contracts import Status, StopReason, Usage
from retinue.runs.journal import Frame, Leased, Record
from retinue.runs.tracing import span_id_of
from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces


async def rows(traces: Traces, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await traces.query(sql)).to_pylist()
    return found


def told(*stories: Any) -> Book:
    book = Book()
    for number, story in enumerate(stories):
        for _ in story(book, f"run-{number}", number):
            pass
    return book


@pytest.mark.promise("I1")
async def test_every_table_and_column_is_filled_by_what_the_engine_writes(open_traces: Open) -> None:
    traces = await open_traces(tale(12, book=told(retrying, visiting, boxing)))
    await drain(traces)
    found = await contents(traces)
    empty = {
        f"{table}.{column}"
        for table, lines in found.items()
        for column in (lines[0] if lines else {"": None})
        if all(line.get(column) is None for line in lines)
    }
    assert empty == set()


@pytest.mark.promise("I2")
async def test_a_model_call_keeps_prompt_parameters_reply_and_cost(open_traces: Open) -> None:
    traces = await open_traces(told(answering))
    await drain(traces)
    (call,) = await rows(traces, "SELECT * FROM model_calls WHERE turn = 1")
    assert call["prompt"] == "research/v3"
    assert call["parameters"] == '{"max_tokens":512,"seed":7,"temperature":0.0}'
    assert call["messages"].startswith('[{"role":"system","content":"Quote your evidence."}')
    assert call["tool_calls"] == '[{"id":"c2","name":"pricing_tool","arguments":{"amount":12000}}]'
    assert call["raw"] == '{"choices":[{"text":""}]}'
    assert (call["model"], call["response_model"], call["provider"]) == (
        "builtin:extractive",
        "extractive-1",
        "retinue",
    )
    assert (call["input_tokens"], call["cost_usd"], call["finish_reason"]) == (121, Decimal("0.001250"), "tool_calls")
    assert call["span_id"] == span_id_of("run-0", "1/model#0")
    assert call["tools"] == ["search", "pricing_tool"]


async def test_spans_stand_under_their_run_and_carry_the_host_of_the_lease(open_traces: Open) -> None:
    traces = await open_traces(told(answering, failing))
    await drain(traces)
    spans = await rows(traces, "SELECT * FROM spans WHERE run_id = 'run-1' ORDER BY seq, ordinal")
    run = spans[-1]
    assert [span["name"] for span in spans] == [
        "chat builtin:extractive",
        "execute_tool pricing_tool",
        "invoke_agent pricer",
    ]
    assert {span["parent_span_id"] for span in spans[:-1]} == {run["span_id"]}
    assert [(span["host_id"], span["node"], span["epoch"]) for span in spans] == [
        ("host-1", "node-b", 1),
        ("host-2", "node-a", 2),
        ("host-2", "node-a", 2),
    ]
    assert (spans[1]["attempts"], spans[1]["status"], spans[1]["error_type"]) == (2, "error", "timeout")
    assert (run["result"], run["status"], run["error_type"]) == ("tool_failure", "error", "tool_failure")
    assert run["duration_ms"] == (run["end_ns"] - run["start_ns"]) / 1e6 > 0


async def test_runs_show_status_reason_times_and_usage(open_traces: Open) -> None:
    book = told(answering, failing, asking)
    parked = Run(book, "parked").accept().lease(1)
    left = parked.intent("input", "question", "ask#0", {"prompt": "which one?"}, request_id="q-9")
    parked.write(left)
    Run(book, "queued").accept()
    traces = await open_traces(book)
    await drain(traces)
    found = await rows(traces, "SELECT run_id, status, reason, hops, cost_usd, leases FROM runs ORDER BY run_id")
    assert [tuple(line.values()) for line in found] == [
        ("parked", "in_progress", None, None, None, 1),
        ("queued", "queued", None, None, None, 0),
        ("run-0", "completed", "success", 2, Decimal("0.003750"), 1),
        ("run-1", "failed", "tool_failure", 0, Decimal("0.001550"), 2),
        ("run-2", "canceled", "canceled", 1, Decimal("0.001250"), 2),
    ]
    flight = await rows(traces, "SELECT run_id, key, effect FROM in_flight")
    assert flight == [{"run_id": "parked", "key": "ask#0", "effect": "input"}]
    waiting = await rows(traces, "SELECT request_id, status, prompt FROM approvals WHERE run_id = 'parked'")
    assert waiting == [{"request_id": "q-9", "status": "open", "prompt": "which one?"}]


async def test_a_retried_run_ends_as_it_did_last(open_traces: Open) -> None:
    traces = await open_traces(told(retrying))
    await drain(traces)
    assert await rows(traces, "SELECT status, reason, leases FROM runs") == [
        {"status": "completed", "reason": "success", "leases": 2}
    ]
    assert [line["event"] for line in await rows(traces, "SELECT event FROM run_events ORDER BY seq, ordinal")] == [
        "accepted",
        "leased",
        "finished",
        "retried",
        "leased",
        "finished",
    ]
    assert await rows(traces, "SELECT number, retried_by, again, version FROM retries") == [
        {"number": 1, "retried_by": "ben", "again": "0/pricing_tool#0", "version": "4"}
    ]


async def test_costs_of_all_tries_add_up_to_what_the_runs_spent(open_traces: Open) -> None:
    traces = await open_traces(told(answering, failing, asking))
    await drain(traces)
    sides = await rows(
        traces,
        "SELECT (SELECT sum(cost_usd) FROM costs) AS tries, (SELECT sum(cost_usd) FROM run_results) AS runs, "
        "(SELECT sum(input_tokens)::BIGINT FROM costs) AS read, "
        "(SELECT sum(input_tokens)::BIGINT FROM run_results) AS all_read",
    )
    assert sides[0]["tries"] == sides[0]["runs"] == Decimal("0.006550")
    assert sides[0]["read"] == sides[0]["all_read"] == 603


async def test_steps_that_nobody_waited_for_end_with_their_run(open_traces: Open) -> None:
    traces = await open_traces(told(asking))
    await drain(traces)
    left = await rows(traces, "SELECT key, result, status FROM spans WHERE key LIKE '1/%' ORDER BY key")
    assert [tuple(line.values()) for line in left] == [
        ("1/open_ticket#0", "unknown", "error"),
        ("1/post#0", "unknown", "error"),
        ("1/search#0", "canceled", "unset"),
        ("1/sleep#0", "canceled", "unset"),
    ]
    assert await rows(traces, "SELECT * FROM in_flight") == []


async def test_a_decision_of_the_gate_is_no_span(open_traces: Open) -> None:
    book = Book()
    run = Run(book, "gated").accept().lease()
    decided = run.outcome(run.intent("gate", "clerk", "0/clerk#0"), verdict("allow"))
    run.write(run.record("policy", None, stage="request", resource="clerk", decision=verdict("allow")), decided)
    traces = await open_traces(book)
    await drain(traces)
    assert await rows(traces, "FROM spans") == []
    (row,) = await rows(traces, "SELECT stage, resource, outcome, rules, micros FROM policy_decisions")
    assert tuple(row.values()) == ("request", "clerk", "allow", ["reads"], 12)


async def test_what_the_gate_said_of_a_repeat_is_a_decision_of_its_own(open_traces: Open) -> None:
    book = Book()
    run = Run(book, "doubtful").accept().lease()
    made = run.intent("call", "pay", "0/pay#0", {}, side_effect="write", gate=verdict("allow"))
    run.write(made, run.outcome(made, None, "unknown", gate=verdict("deny", "we are closed")))
    traces = await open_traces(book)
    await drain(traces)
    decided = await rows(traces, "SELECT key, outcome FROM policy_decisions ORDER BY outcome")
    assert [tuple(row.values()) for row in decided] == [("0/pay#0", "allow"), ("0/pay#0", "deny")]


async def test_an_approval_shows_who_said_what_and_how_long_it_took(open_traces: Open) -> None:
    traces = await open_traces(told(asking))
    await drain(traces)
    (asked,) = await rows(traces, "SELECT * FROM approvals")
    assert (asked["kind"], asked["status"], asked["answered_by"]) == ("approval", "approved", "olga")
    assert asked["prompt"] == "May clerk call open_ticket?"
    assert asked["waited_ms"] > 0


async def test_failures_and_unreadable_inputs_are_dead_letters(open_traces: Open) -> None:
    traces = await open_traces(told(answering, failing, asking))
    await drain(traces)
    letters = await rows(traces, "SELECT source, line, reason, message FROM dead_letters ORDER BY source")
    assert [tuple(letter.values()) for letter in letters] == [
        ("in.jsonl", 3, "unreadable", "no JSON"),
        ("run", None, "tool_failure", "no answer from password=[redacted]"),
    ]


async def test_a_step_that_is_begun_again_is_one_span_from_its_first_intent(open_traces: Open) -> None:
    book = Book()
    run = Run(book, "again").accept().lease()
    first = run.intent("model", "m", "0/model#0", {"messages": ["one"]}, model="m", turn=0)
    run.write(first)
    run.lease(1)
    second = run.intent("model", "m", "0/model#0", {"messages": ["one"]}, model="m", turn=0)
    run.write(second, run.outcome(second, {"text": "yes"}))
    traces = await open_traces(book)
    await drain(traces, 1)
    (span,) = await rows(traces, "SELECT start_ns, activation FROM spans")
    assert span["start_ns"] == first.at
    (call,) = await rows(traces, "SELECT messages FROM model_calls")
    assert call["messages"] == '["one"]'


async def test_runs_whose_beginning_is_not_in_the_journal_keep_their_rows(open_traces: Open) -> None:
    book = told(answering)
    book.frames = [
        Frame(number, frame.run_id, frame.tenant_id, frame.position, frame.epoch, frame.entries)
        for number, frame in enumerate(book.frames[2:], 1)
    ]
    traces = await open_traces(book)
    await drain(traces, 2)
    assert len(await rows(traces, "FROM spans WHERE agent IS NULL")) == 6
    assert len(await rows(traces, "FROM run_results")) == 1


async def test_content_whose_key_was_destroyed_is_null_and_the_facts_stay(open_traces: Open) -> None:
    book = told(answering)
    book.frames = [
        Frame(
            frame.seq,
            frame.run_id,
            frame.tenant_id,
            frame.position,
            frame.epoch,
            tuple(entry.model_copy(update={"content": None}) for entry in frame.entries),
        )
        for frame in book.frames
    ]
    traces = await open_traces(book)
    await drain(traces)
    (call,) = await rows(traces, "SELECT messages, text, raw, turn, cost_usd FROM model_calls WHERE turn = 0")
    assert call == {"messages": None, "text": None, "raw": None, "turn": 0, "cost_usd": Decimal("0.001250")}


STRANGE: list[Any] = [
    "a lone \ud83d surrogate",
    {"key \udc00": ["\x00", float("nan"), float("inf"), 2**80, -(2**63) - 1]},
    "x" * 1_000_000,
    {"": None, "a": {"a": {"a": []}}},
]


async def test_strange_values_harm_only_themselves(open_traces: Open) -> None:
    deep: Any = 1
    for _ in range(2_000):
        deep = [deep]
    book = Book()
    run = Run(book, "strange").accept().lease()
    for value in [*STRANGE, deep]:
        run.write(Record(at=book.tick(), topic="odd", facts={"name": "n"}, content=value))
    facts = {"turn": "three", "type": 7, "tools": [1, {"name": "\ud800"}], "limit": 2**70}
    for topic in ("decision", "context", "observation", "validation", "policy", "handoff", "dead_letter", "other"):
        run.write(Record(at=book.tick(), topic=topic, facts=facts | {"items": "none", "errors": {"a": 1}, "line": "x"}))
    traces = await open_traces(book)
    assert await drain(traces) == len(book.frames)
    assert len(await rows(traces, "FROM events WHERE topic = 'odd' AND content IS NOT NULL")) == len(STRANGE) + 1
    (cut,) = await rows(traces, "SELECT content.characters::BIGINT AS size FROM events WHERE content.truncated")
    assert cut == {"size": 1_000_002}
    (decision,) = await rows(traces, "SELECT turn, type, tools FROM decisions")
    assert decision == {"turn": None, "type": "7", "tools": ["1", "?"]}


def test_an_empty_lease_history_and_clock_skew_give_no_negative_spans() -> None:
    async def skewed() -> list[dict[str, Any]]:
        book = Book()
        run = Run(book, "skew").accept()
        run.write(Leased(at=book.now, epoch=1, host_id="h", actor_id=None, pid=1, node="n"))
        asked = run.intent("step", "shell", "s#0")
        ended = run.outcome(asked).model_copy(update={"at": asked.at - 5_000_000})
        run.write(asked, ended)
        run.finish(Status.completed, StopReason.success, usage=Usage())
        with tempfile.TemporaryDirectory() as folder:
            async with Traces(Path(folder), book, Redactor()) as traces:
                await drain(traces)
                return await rows(traces, "SELECT duration_ms FROM spans WHERE effect = 'step'")

    assert asyncio.run(skewed()) == [{"duration_ms": 0.0}]


BOOK = tale(16, seed=5)


async def projected(cuts: list[int], restarts: set[int]) -> Contents:
    """The tables after projecting BOOK in these batches, closing and opening before some of them."""
    with tempfile.TemporaryDirectory() as folder:
        traces = Traces(Path(folder), BOOK, Redactor(["hunter2hunter2"]))
        await traces.open()
        for number, size in enumerate(cuts):
            if number in restarts:
                await traces.close()
                traces = Traces(Path(folder), BOOK, Redactor(["hunter2hunter2"]))
                await traces.open()
            await traces.project(size)
        await drain(traces)
        found = await contents(traces)
        await traces.close()
        return found


@pytest.fixture(scope="module")
def whole() -> Contents:
    return asyncio.run(projected([10_000], set()))


@pytest.mark.promise("I3")
@pytest.mark.rule("R11")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 60), min_size=3, max_size=12),
    restarts=st.sets(st.integers(0, 11), max_size=4),
)
def test_batches_and_restarts_do_not_change_the_tables(whole: Contents, cuts: list[int], restarts: set[int]) -> None:
    assert asyncio.run(projected(cuts, restarts)) == whole


@pytest.mark.promise("D2", "D3")
async def test_sessions_and_elicitations_are_rows_and_tokens_are_not(open_traces: Open) -> None:
    traces = await open_traces(told(visiting))
    await drain(traces)
    (session,) = await rows(traces, "SELECT * FROM capability_sessions")
    assert (session["status"], session["cause"], session["approval"]) == ("closed", "the run ended", "approved")
    (asked,) = await rows(traces, "SELECT tool, form, status, answered_by, action FROM elicitations")
    assert asked == {
        "tool": "desk__order",
        "form": "form",
        "status": "answered",
        "answered_by": "olga",
        "action": "accept",
    }
    changes = await rows(traces, "SELECT before, status, cause FROM session_changes ORDER BY seq, ordinal")
    assert [change["status"] for change in changes] == ["in_progress", "waiting_for_input", "closed"]
    assert "requestState" not in str(await contents(traces))
