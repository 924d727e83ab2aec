"""The rounds of the alert desk: who has the turn, how much is told, what is acknowledged, what a look costs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.doubles.worlds import world
from tests.unit.host.alerting import (
    DEFINITIONS,
    HOUR,
    Watch,
    asks,
    sick,
    spends,
    waiting,
    watched,
)

from retinue.runs.alerts import MOST, OTHERS, Cause, Changes
from retinue.runs.errors import BudgetExhausted, InvalidInput, UnknownName
from retinue.store.alerts import look as look_at_alerts
from retinue.store.sqlite import SqliteStore
from retinue.store.statements import migrations

pytestmark = [pytest.mark.promise("K5")]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    async with watched(tmp_path) as watch:
        yield watch


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
