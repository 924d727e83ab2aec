"""Alerts are raised once for each kind and subject, clear when their cause is gone, and come back with it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.doubles.worlds import World, calls, world

from retinue.host.alerting import AlertDesk
from retinue.host.files import shards_of, source_of
from retinue.host.parts import StoredParts
from retinue.host.settings import Settings
from retinue.runs.alerts import MOST, OTHERS, Alert, Cause, Changes
from retinue.runs.batch import JOB, BatchJob, Parts
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import BudgetExhausted, InvalidInput, PermanentError, TransientError, UnknownName
from retinue.sessions.native import tool
from retinue.store.alerts import look as look_at_alerts
from retinue.store.sqlite import SqliteStore
from retinue.store.statements import migrations

pytestmark = [pytest.mark.promise("K5")]

HOUR = 3_600.0
POLICY = '@id("rest") permit (principal, action, resource) unless { action == Action::"doubt" };'
"""No rule speaks of doubts: a person resolves them."""

sick: list[Exception] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    sick.clear()


@tool(side_effect="write", idempotency="at_most_once")
async def mail(text: str) -> str:
    """Mails; fails as it is told to."""
    if sick:
        raise sick[0]
    return text


@tool(side_effect="read")
async def look(at: str) -> str:
    """Looks; fails as it is told to."""
    if sick:
        raise sick[0]
    return at


clerk = agent("clerk", "Works.", tools=[mail, look])


@workflow
async def asks(ctx: Context, _: Any) -> Any:
    return await ctx.ask("which region?")


@workflow
async def passes_on(ctx: Context, _: Any) -> Any:
    return await ctx.ask("which region?", to="ops", escalate=("10m", "lead"))


@workflow
async def listens(ctx: Context, _: Any) -> Any:
    return await ctx.event("paid")


@workflow
async def mails(ctx: Context, _: Any) -> Any:
    return await ctx.call("mail", text="hello")


@workflow
async def looks(ctx: Context, _: Any) -> Any:
    return await ctx.call("look", at="the shelf")


@workflow
async def spends(ctx: Context, many: int) -> Any:
    if many:
        found = await ctx.map(spends, [0] * many)
        return [branch.reason for branch in found]
    if not sick:
        return "done"
    raise sick[0]


DEFINITIONS = (clerk, asks, passes_on, listens, mails, looks, spends)


class Watch:
    """A desk over a world, on the world's clock; `projected` is how far the trace tables are."""

    def __init__(self, world: World, store: SqliteStore, **alerts: Any) -> None:
        self.world = world
        self.store = store
        self.projected = 1_000_000
        self.desk = self.another(**alerts)

    def another(self, **alerts: Any) -> AlertDesk:
        settings = Settings(folder=self.world.folder, alerts=alerts)
        return AlertDesk(settings, self.store, lambda: self.projected, now_ns=self.world.clock)

    async def round(self) -> list[Alert]:
        """One round; what stands after it."""
        while await self.desk.round():
            continue
        return await self.store.alerts.listed()

    async def kinds(self) -> list[tuple[str, str]]:
        return [(alert.kind, alert.subject) for alert in await self.round()]

    async def ever(self) -> int:
        return len(await self.store.alerts.listed(everything=True))


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(world("sqlite", tmp_path, *DEFINITIONS, policy=POLICY))
        assert isinstance(made.store, SqliteStore)
        yield Watch(made, made.store)


async def waiting(watch: Watch, target: Any) -> str:
    """A run that waits."""
    run_id = await watch.world.submit(target)
    await watch.world.settle()
    return run_id


async def test_a_question_that_waits_too_long_is_told_once_and_clears_with_its_answer(watch: Watch) -> None:
    run_id = await waiting(watch, asks)
    assert await watch.round() == []
    watch.world.clock.advance(HOUR + 1)
    [alert] = await watch.round()
    assert (alert.kind, alert.facts["run"], alert.facts["tenant"]) == ("wait", run_id, "acme")
    assert f"run {run_id} waits for an answer since" in alert.message and "region" not in alert.message
    assert await watch.round() == [alert]
    await watch.world.answer(run_id, "eu")
    assert await watch.round() == [] and await watch.ever() == 1


async def test_a_question_that_is_passed_on_is_told_though_it_is_young(watch: Watch) -> None:
    run_id = await waiting(watch, passes_on)
    assert await watch.round() == []
    assert await watch.world.wait_out()
    await watch.world.settle()
    [alert] = await watch.round()
    assert alert.kind == "wait" and "passed on to lead" in alert.message
    watch.world.clock.advance(HOUR)
    assert await watch.round() == [alert]
    await watch.world.answer(run_id, "eu")
    assert await watch.round() == []


async def test_a_run_that_waits_too_long_for_an_event_is_told_and_clears_with_it(watch: Watch) -> None:
    run_id = await waiting(watch, listens)
    assert await watch.round() == []
    watch.world.clock.advance(HOUR + 1)
    [alert] = await watch.round()
    assert (alert.kind, alert.subject) == ("wait", run_id) and "waits for an event" in alert.message
    assert alert.facts["waits"] == ["0/paid#0"]
    await watch.store.signal(run_id, "paid", 3, watch.world.clock())
    await watch.world.settle()
    assert await watch.round() == []


async def test_a_breaker_is_told_while_it_is_open_and_again_when_it_opens_again(watch: Watch) -> None:
    async def fail() -> None:
        for _ in range(5):
            await watch.store.breakers.failed("capability:look", "away", watch.world.clock())

    await fail()
    [alert] = await watch.round()
    assert (alert.kind, alert.subject) == ("breaker", "capability:look")
    assert alert.message.endswith("after 5 failures in a row: away")
    await watch.store.breakers.succeeded("capability:look")
    assert await watch.round() == []
    await fail()
    [again] = await watch.round()
    assert again.id != alert.id and again.kind == "breaker"


async def test_budgets_are_told_of_by_tree_and_clear_when_the_tree_is_retried(watch: Watch) -> None:
    sick.append(BudgetExhausted("no money left"))
    root = (await watch.world.run(spends, 3)).run_id
    alone = (await watch.world.run(spends, 0)).run_id
    first, second = await watch.round()
    assert {first.subject, second.subject} == {root, alone}
    by_subject = {alert.subject: alert for alert in (first, second)}
    assert (by_subject[root].facts["count"], len(by_subject[root].facts["runs"])) == (3, 3)
    assert "3 runs of its tree ended for want of budget" in by_subject[root].message
    assert f"run {alone} (spends) ended for want of budget" in by_subject[alone].message
    sick.clear()
    await watch.world.retry(alone)
    assert await watch.kinds() == [("budget", root)]


async def test_what_fails_again_after_a_retry_is_another_alert(watch: Watch) -> None:
    sick.append(BudgetExhausted("no money left"))
    run_id = (await watch.world.run(spends, 0)).run_id
    [alert] = await watch.round()
    await watch.world.retry(run_id)
    await watch.world.finish(run_id)  # no round in between
    [again] = await watch.round()
    assert (again.subject, again.facts["count"]) == (run_id, 1) and again.id != alert.id


async def test_a_real_limit_is_told_of(watch: Watch) -> None:
    watch.world.decide(calls("look", at="here"), {"answer": "42"})
    result = await watch.world.run(clerk, "why?", budget=Budget(steps=1))
    assert result.reason is StopReason.budget_exhausted
    assert await watch.kinds() == [("budget", result.run_id)]


async def test_a_write_that_may_have_happened_is_told_at_once_and_clears_when_a_person_said(watch: Watch) -> None:
    sick.append(TransientError("the reply was lost"))
    run_id = await waiting(watch, mails)
    [alert] = await watch.round()
    assert alert.kind == "side_effect_unknown" and f"run {run_id}: mail may have happened" in alert.message
    await watch.world.answer(run_id, "fail")
    failed = await watch.world.finish(run_id)
    assert failed.reason is StopReason.side_effect_unknown
    [ended] = await watch.round()
    assert (ended.kind, ended.subject, ended.lasting) == ("side_effect_unknown", run_id, False)
    sick.clear()
    await watch.world.retry(run_id)
    assert await watch.round() == []


async def test_rows_that_failed_and_inputs_that_were_refused_are_told_by_job(watch: Watch, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("0\n{half\n0\n0\n")
    sick.append(BudgetExhausted("no money left"))
    job = BatchJob(target="spends", source=source_of(rows), window=2)
    result = await watch.world.run(JOB, job.model_dump(mode="json"))
    assert result.value == {"total": 3, "ok": 0, "failed": 3, "rejected": 1}
    alerts = {alert.kind: alert for alert in await watch.round()}
    letters = alerts["dead_letters"]
    assert (letters.subject, letters.facts["failed"], letters.facts["refused"]) == (result.run_id, 3, 1)
    assert "3 rows failed and 1 input could not be read: `retinue dlq list --job" in letters.message
    await watch.store.alerts.acknowledge(letters.id, "ana", watch.world.clock())
    assert await watch.kinds() == [("budget", result.run_id)]


async def test_rows_of_a_job_over_many_files_are_told_as_one_job(watch: Watch, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("0\n{half\n0\n")
    sick.append(PermanentError("broken"))
    shards = shards_of(f"file://{tmp_path}/?.jsonl")
    parts = Parts(folder=f"file://{tmp_path}/out/", shards=shards, at_once=2)
    job = BatchJob(target="spends", source=shards[0], window=2, parts=parts)
    watch.world.use(parts=StoredParts(watch.store))
    result = await watch.world.run(JOB, job.model_dump(mode="json", exclude_none=True))
    assert result.value == {"total": 4, "ok": 0, "failed": 4, "rejected": 2}
    [letters] = await watch.round()
    assert (letters.subject, letters.facts["failed"], letters.facts["refused"]) == (result.run_id, 4, 2)


async def test_a_root_whose_failure_may_pass_is_told_and_clears_when_it_is_retried(watch: Watch) -> None:
    sick.append(TransientError("away"))
    run_id = (await watch.world.run(looks)).run_id
    assert await watch.kinds() == [("dead_letters", run_id)]
    sick.clear()
    await watch.world.retry(run_id)
    assert await watch.round() == []


async def test_tables_that_lag_are_told_of_until_they_have_caught_up(watch: Watch) -> None:
    watch.projected = 0
    await waiting(watch, listens)
    assert await watch.round() == []
    watch.world.clock.advance(59)
    assert await watch.round() == []
    watch.world.clock.advance(2)
    [alert] = await watch.round()
    assert (alert.kind, alert.subject) == ("traces_lag", "traces") and "61 s behind" in alert.message
    watch.projected = 1
    assert await watch.round() == [alert]
    watch.projected = await watch.store.newest()
    assert await watch.round() == []


async def test_an_acknowledged_alert_is_not_told_again_while_it_lasts_and_comes_back_after(watch: Watch) -> None:
    await watch.store.breakers.failed("a", "away", watch.world.clock())
    for _ in range(4):
        await watch.store.breakers.failed("a", "away", watch.world.clock())
    [alert] = await watch.round()
    known = await watch.store.alerts.acknowledge(alert.id, "ana", watch.world.clock())
    assert (known.acked_by, known.cleared_at) == ("ana", None)
    assert await watch.round() == [] and await watch.ever() == 1
    with pytest.raises(InvalidInput, match="acknowledged by ana already"):
        await watch.store.alerts.acknowledge(alert.id, "ben", watch.world.clock())
    with pytest.raises(UnknownName, match="no alert 99"):
        await watch.store.alerts.acknowledge(99, "ben", watch.world.clock())
    await watch.store.breakers.succeeded("a")
    await watch.round()
    for _ in range(5):
        await watch.store.breakers.failed("a", "away", watch.world.clock())
    assert len(await watch.round()) == 1


async def test_too_many_of_one_kind_are_counted_in_one_more_and_none_is_lost(watch: Watch) -> None:
    await watch.round()
    look = await watch.store.alerts.look(0)
    facts = {"count": 1, "target": "t", "reason": "budget_exhausted", "since": 1}
    causes = tuple(Cause("budget", f"r{n}", {**facts, "runs": [f"r{n}"]}) for n in range(MOST + 5))
    await watch.store.alerts.change(Changes(watch.world.clock(), look.cursor, causes=causes))
    standing = await watch.store.alerts.listed()
    assert len(standing) == MOST + 1
    assert (standing[-1].subject, standing[-1].facts["count"]) == (OTHERS, 5)
    assert standing[-1].message.startswith("5 more runs for budget")


async def test_one_process_at_a_time_has_the_turn_and_the_next_goes_on_when_it_is_gone(watch: Watch) -> None:
    other = watch.another()
    await watch.round()
    sick.append(BudgetExhausted("no money left"))
    await watch.world.run(spends, 0)
    await other.round()
    assert await watch.ever() == 0
    watch.world.clock.advance(31)
    await other.round()
    assert await watch.ever() == 1
    await watch.world.run(spends, 0)
    await watch.round()
    assert await watch.ever() == 1
    await other.leave()
    assert len(await watch.round()) == 2


async def test_a_clock_that_is_set_back_holds_up_nobody(watch: Watch) -> None:
    watch.world.clock.advance(HOUR)
    await watch.round()
    watch.world.clock.advance(-HOUR)
    sick.append(BudgetExhausted("no money left"))
    run_id = (await watch.world.run(spends, 0)).run_id
    await watch.another().round()
    assert [alert.subject for alert in await watch.store.alerts.listed()] == [run_id]


async def test_what_had_ended_before_there_were_alerts_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    connection = apsw.Connection(str(tmp_path / "data" / "store.db"))
    for step in migrations()[:2]:
        connection.execute(step)
    connection.execute("INSERT INTO journal (seq, run, position, epoch, schema, facts) VALUES (7, 1, 2, 1, 1, '[]')")
    connection.execute(
        "INSERT INTO runs (run_id, tenant_id, target, kind, pool, priority, depth, status, reason, created_at,"
        " finished_at, final, final_seq) VALUES ('old', 'acme', 'spends', 'workflow', 'runs', 0, 0, 'failed',"
        " 'budget_exhausted', 1, 2, 2, 7)"
    )
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    sick.append(BudgetExhausted("no money left"))
    async with world("sqlite", tmp_path, *DEFINITIONS) as made:
        assert isinstance(made.store, SqliteStore)
        watch = Watch(made, made.store)
        assert (await watch.store.get("old")).reason == "budget_exhausted"
        assert await watch.round() == []
        run_id = (await made.run(spends, 0)).run_id
        assert await watch.kinds() == [("budget", run_id)]


async def test_every_look_is_by_an_index(watch: Watch) -> None:
    await waiting(watch, asks)
    connection = apsw.Connection(str(watch.store.folder / "store.db"))
    seen: list[str] = []

    def trace(_: Any, text: str, __: Any) -> bool:
        seen.append(text)
        return True

    connection.set_exec_trace(trace)
    look_at_alerts(connection, 2**62)
    connection.set_exec_trace(None)
    assert len(seen) > 10
    plans = [
        row[3] for text in seen for row in connection.execute(f"EXPLAIN QUERY PLAN {re.sub('[:?][a-z]*', '1', text)}")
    ]
    connection.close()
    short = (
        "SCAN json_each",
        "SCAN CONSTANT ROW",
        "SCAN breakers",
        "SCAN alerts USING INDEX alerts_standing",
        "SCAN q USING INDEX requests_doubt",
        "SCAN accounts USING INDEX accounts_exhausted",
        "SCAN rollouts",
    )
    assert any("runs_failed" in line for line in plans) and any("runs_on_event" in line for line in plans)
    assert [line for line in plans if "SCAN" in line and not line.startswith(short)] == []
