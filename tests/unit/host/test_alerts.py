"""Alerts are raised once for each kind and subject, clear when their cause is gone, and come back with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.doubles.worlds import calls
from tests.unit.host.alerting import (
    HOUR,
    Watch,
    asks,
    clerk,
    listens,
    looks,
    mails,
    passes_on,
    sick,
    spends,
    waiting,
    watched,
)

from retinue.host.files import shards_of, source_of
from retinue.host.parts import StoredParts
from retinue.runs.batch import JOB, BatchJob, Parts
from retinue.runs.contracts import Budget, StopReason
from retinue.runs.errors import BudgetExhausted, PermanentError, TransientError

pytestmark = [pytest.mark.promise("K5")]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    async with watched(tmp_path) as watch:
        yield watch


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
