"""`retinue alerts` and `retinue alerts ack`, on a store that holds one alert of each sort."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit
from retinue.runs.alerts import Cause, Changes
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.promise("K5")]

OPEN = Cause("breaker", "capability:look", {"since": 1, "failures": 5, "reason": "away \x1b[2J"})
ENDED = Cause(
    "budget", "r1", {"runs": ["r1"], "count": 1, "target": "spends", "reason": "budget_exhausted", "since": 1}
)


@pytest.fixture
def alerted(folder: Path) -> Path:
    """The current folder, a project with two alerts: 1 lasts, 2 tells of an end."""

    async def write() -> None:
        store = SqliteStore(folder / ".retinue")
        cursor = (await store.alerts.look(0)).cursor
        await store.alerts.change(Changes(1_000_000_000, cursor, causes=(OPEN, ENDED), channels=("webhook",)))
        await store.close()

    asyncio.run(write())
    return folder


def test_alerts_that_stand_are_listed_and_what_they_say_steers_no_terminal(retinue: Command, alerted: Path) -> None:
    said = retinue("alerts")
    first, second = said.out.splitlines()
    assert said.code == Exit.done
    assert "breaker" in first and "capability:look is left alone" in first and "\x1b" not in said.out
    assert "run r1 (spends) ended for want of budget: `retinue inspect r1`" in second


def test_alerts_speak_json(retinue: Command, alerted: Path) -> None:
    first, second = retinue("alerts", "--json").json
    assert (first["id"], first["kind"], first["to"], first["sent_at"]) == (1, "breaker", ["webhook"], None)
    assert second["facts"]["runs"] == ["r1"]
    assert [alert["id"] for alert in retinue("alerts", "--all", "--limit", "1", "--json").json] == [2]


def test_an_acknowledged_alert_is_listed_only_when_asked_for(retinue: Command, alerted: Path) -> None:
    assert retinue("alerts", "ack", "1", "--by", "ana").out == "alert 1: acknowledged by ana\n"
    known = retinue("alerts", "ack", "2", "--json").json
    assert known["cleared_at"] is not None
    assert retinue("alerts").out == "nothing is the matter\n"
    cleared, lasting = retinue("alerts", "--all").out.splitlines()
    assert "acknowledged by ana" in lasting and "cleared" not in lasting and "; cleared" in cleared


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ack", "9"], "there is no alert 9"),
        (["ack", "x"], "'x' is not a valid integer"),
        (["ack"], "Missing argument 'ID'"),
        (["--json", "ack", "1"], "give options behind the word"),
        (["--project", ".", "ack", "1"], "give options behind the word"),
        (["bogus"], "No such command 'bogus'"),
    ],
)
def test_bad_words_are_refused(retinue: Command, alerted: Path, words: list[str], said: str) -> None:
    refused = retinue("alerts", *words)
    assert refused.code == Exit.usage and said in refused.out + refused.err
    assert len(retinue("alerts", "--json").json) == 2


def test_without_any_there_is_nothing_the_matter(retinue: Command, folder: Path) -> None:
    assert retinue("alerts").out == "nothing is the matter\n"
