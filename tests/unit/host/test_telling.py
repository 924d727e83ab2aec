"""Somebody is told of an alert at least once, by signed post or command, and whoever cannot be told blocks nobody."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.projects import project
from tests.doubles.receiver import receiver
from tests.doubles.worlds import Clock

from retinue.host import alerting as alerting_module
from retinue.host import telling
from retinue.host.alerting import TRIES, AlertDesk, alerting, body_of
from retinue.host.settings import Settings
from retinue.host.telling import SIGNATURE, NotTold, channels_of
from retinue.ingress.connecting import connect
from retinue.runs.alert_text import said
from retinue.runs.alerts import Alert
from retinue.runs.errors import RunFailed, StoreFull
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.promise("K5")]

KEEPS = "import sys; open('told.jsonl', 'a').write(sys.stdin.read())"
PAUSES = [10, 20, 40, 80, 160, 320, 600]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "data", patience=5.0)
    yield made
    await made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def trip(store: SqliteStore, name: str = "capability:look") -> None:
    """Give cause for an alert."""
    for _ in range(5):
        await store.breakers.failed(name, "away", 1)


def a_desk(store: SqliteStore, folder: Path, clock: Clock, **alerts: Any) -> AlertDesk:
    return AlertDesk(Settings(folder=folder, alerts=alerts), store, now_ns=clock)


async def raised(store: SqliteStore, desk: AlertDesk) -> Alert:
    """Give cause, look, and see what was raised."""
    await trip(store)
    await desk.round()
    [alert] = await store.alerts.listed()
    return alert


def keeps() -> list[str]:
    return [sys.executable, "-c", KEEPS]


async def test_a_webhook_is_told_once_with_a_signature_over_the_body(
    store: SqliteStore, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "geheim ü")
    async with receiver() as hook:
        desk = a_desk(store, tmp_path, clock, webhook=hook.url, webhook_secret="HOOK_KEY")
        alert = await raised(store, desk)
        assert await desk.tell() == 1
        assert await desk.tell() == 0
        await desk.round()
        assert await desk.tell() == 0
    [post] = hook.posts
    wanted = hmac.new("geheim ü".encode(), post.body, hashlib.sha256).hexdigest()
    assert post.headers[SIGNATURE] == f"sha256={wanted}"
    assert post.json == body_of(alert, store.alerts.incarnation)
    assert (post.json["kind"], post.json["subject"]) == ("breaker", "capability:look")
    assert post.json["text"] == alert.message and post.json["facts"]["failures"] == 5
    [told] = await store.alerts.listed()
    assert told.sent_at is not None and told.to == () and told.tries == 1


async def test_without_its_key_nothing_is_posted_unsigned(
    store: SqliteStore, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver() as hook:
        desk = a_desk(store, tmp_path, clock, webhook=hook.url, webhook_secret="NO_SUCH_KEY")
        await raised(store, desk)
        await desk.tell()
        assert hook.posts == []
    assert "environment variable NO_SUCH_KEY is not set" in caplog.text


@pytest.mark.parametrize("fault", ["down", "refuses"])
async def test_a_receiver_that_fails_is_tried_again_later(
    store: SqliteStore, tmp_path: Path, clock: Clock, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver() as hook:
        port = int(hook.url.split(":")[2].split("/")[0])
        hook.statuses = [503]
        if fault == "refuses":
            desk = a_desk(store, tmp_path, clock, webhook=hook.url)
            await raised(store, desk)
            assert await desk.tell() == 1
    if fault == "down":
        desk = a_desk(store, tmp_path, clock, webhook=hook.url)
        await raised(store, desk)
        assert await desk.tell() == 1
    assert await desk.tell() == 0
    clock.advance(11)
    async with receiver(port) as back:
        assert await desk.tell() == 1
        assert [post.json["kind"] for post in back.posts] == ["breaker"]
    [told] = await store.alerts.listed()
    assert told.tries == 2 and told.sent_at is not None
    assert "was not told, try 1" in caplog.text and "s3cr3t" not in caplog.text


async def test_it_is_given_up_after_eight_tries_with_a_line_in_the_log(
    store: SqliteStore, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver() as hook:
        hook.statuses = [500] * 20
        desk = a_desk(store, tmp_path, clock, webhook=hook.url)
        await raised(store, desk)
        assert await desk.tell() == 1
        for pause in PAUSES:
            clock.advance(pause - 1)
            assert await desk.tell() == 0
            clock.advance(2)
            await desk.round()
            assert await desk.tell() == 1
        clock.advance(100_000)
        await desk.round()
        assert await desk.tell() == 0
        assert len(hook.posts) == TRIES and len({post.json["id"] for post in hook.posts}) == 1
    [error] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error.startswith("alert 1 is given up after 8 tries: capability:look is left alone")
    [left] = await store.alerts.listed()
    assert left.to == ("webhook",) and left.sent_at is None


async def test_after_a_crash_between_commit_and_post_the_next_process_posts(
    store: SqliteStore, tmp_path: Path, clock: Clock
) -> None:
    async with receiver() as hook:
        await raised(store, a_desk(store, tmp_path, clock, webhook=hook.url))
        next_one = a_desk(store, tmp_path, clock, webhook=hook.url)
        await next_one.round()
        assert await next_one.tell() == 0, "the turn of the dead one has not run out"
        clock.advance(31)
        await next_one.round()
        assert await next_one.tell() == 1
        assert len(hook.posts) == 1 and len(await store.alerts.listed(everything=True)) == 1


async def test_after_a_crash_between_post_and_commit_the_same_alert_comes_again(
    store: SqliteStore, tmp_path: Path, clock: Clock
) -> None:
    async with receiver() as hook:
        hook.silent = True
        desk = a_desk(store, tmp_path, clock, webhook=hook.url)
        await raised(store, desk)
        telling_of_it = asyncio.create_task(desk.tell())
        await hook.came.wait()
        telling_of_it.cancel()
        await asyncio.gather(telling_of_it, return_exceptions=True)
        hook.silent = False
        assert await desk.tell() == 1
        first, second = hook.posts
        assert first.json["id"] == second.json["id"]


async def test_where_nothing_can_be_written_nobody_is_told_twice(
    store: SqliteStore, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> None:
        raise StoreFull("the disk is full")

    async with receiver() as hook:
        desk = a_desk(store, tmp_path, clock, webhook=hook.url)
        await raised(store, desk)
        with monkeypatch.context() as patch:
            patch.setattr(store.alerts, "tried", full)
            for _ in range(3):
                with pytest.raises(StoreFull):
                    await desk.tell()
        assert await desk.tell() == 1
        assert len(hook.posts) == 1


async def test_an_alert_that_cleared_before_it_was_told_is_told_all_the_same(
    store: SqliteStore, tmp_path: Path, clock: Clock
) -> None:
    async with receiver() as hook:
        desk = a_desk(store, tmp_path, clock, webhook=hook.url)
        await raised(store, desk)
        await store.breakers.succeeded("capability:look")
        await desk.round()
        assert await desk.tell() == 1
        assert hook.posts[0].json["cleared_at"] is not None


async def test_what_was_acknowledged_is_not_told(store: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    async with receiver() as hook:
        desk = a_desk(store, tmp_path, clock, webhook=hook.url)
        alert = await raised(store, desk)
        await store.alerts.acknowledge(alert.id, "ana", clock())
        assert await desk.tell() == 0 and hook.posts == []


async def test_with_nobody_to_tell_alerts_are_listed_and_never_sent_later(
    store: SqliteStore, tmp_path: Path, clock: Clock
) -> None:
    desk = a_desk(store, tmp_path, clock)
    await raised(store, desk)
    assert await desk.tell() == 0
    await desk.leave()
    async with receiver() as hook:
        configured = a_desk(store, tmp_path, clock, webhook=hook.url)
        await configured.round()
        assert await configured.tell() == 0 and hook.posts == []
    assert len(await store.alerts.listed()) == 1


async def test_a_command_gets_the_alert_on_stdin(store: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    desk = a_desk(store, tmp_path, clock, command=keeps())
    alert = await raised(store, desk)
    assert await desk.tell() == 1
    told = json.loads((tmp_path / "told.jsonl").read_text())
    assert told == body_of(alert, store.alerts.incarnation)


async def test_who_was_told_is_not_told_again_because_another_could_not_be(
    store: SqliteStore, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fails = "import sys; sys.exit('no printer')"
    async with receiver() as hook:
        desk = a_desk(store, tmp_path, clock, webhook=hook.url, command=[sys.executable, "-c", fails])
        await raised(store, desk)
        await desk.tell()
        clock.advance(11)
        assert await desk.tell() == 1
        assert len(hook.posts) == 1
    assert "ended with 1: no printer" in caplog.text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/no/such/program"], "cannot be started"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "was stopped after 0.5 s"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with 3: it said nothing on stderr"),
    ],
)
async def test_a_command_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], words: str
) -> None:
    monkeypatch.setattr(telling, "SECONDS", 0.5 if "stopped" in words else 10.0)
    tell = channels_of(Settings(folder=tmp_path, alerts={"command": command}))["command"]
    with pytest.raises(NotTold, match=words):
        await tell({"id": "1", "facts": "x" * 200_000})


async def test_a_receiver_that_never_answers_holds_up_neither_the_rounds_nor_the_end(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting_module, "_FAREWELL", 0.2)
    async with receiver() as hook:
        hook.silent = True
        settings = Settings(folder=tmp_path, alerts={"webhook": hook.url, "every": 0.02})
        async with asyncio.timeout(5), alerting(AlertDesk(settings, store)):
            await trip(store, "first")
            await hook.came.wait()
            await trip(store, "second")
            for _ in range(200):
                if len(await store.alerts.listed()) == 2:
                    break
                await asyncio.sleep(0.01)
            assert [alert.subject for alert in await store.alerts.listed()] == ["first", "second"]


def test_the_document_shows_a_body_as_it_is_posted() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/alerts.md").read_text("utf-8")
    [shown] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    alert = Alert(
        id=shown["alert"],
        kind=shown["kind"],
        subject=shown["subject"],
        message=said(shown["kind"], shown["subject"], shown["facts"]),
        facts=shown["facts"],
        raised_at=shown["raised_at"],
    )
    assert body_of(alert, shown["id"].split("-")[0]) == shown


FLOW = """
from retinue import Context, workflow
from retinue.runs.errors import BudgetExhausted


@workflow
async def broke(ctx: Context, given: str) -> None:
    raise BudgetExhausted("no money left")
"""


async def test_a_host_of_its_own_tells_of_its_runs_before_it_ends(tmp_path: Path) -> None:
    async with receiver() as hook:
        (tmp_path / "broke_flow.py").write_text(FLOW)
        given = {"alerts": {"webhook": hook.url, "every": "1h"}}
        settings = project(tmp_path, modules=["broke_flow"], settings=given)
        async with connect(settings=settings, local=True) as client:
            run = await client.submit("broke", "x")
            with pytest.raises(RunFailed, match="no money left"):
                await run.result(timeout=20)
        [post] = hook.posts
        assert (post.json["kind"], post.json["subject"]) == ("budget", run.run_id)
        async with connect(settings=settings, start=False) as control:
            [alert] = await control.alerts()
            assert (await control.acknowledge(alert.id)).acked_by == "ana"
            assert await control.alerts() == [] and len(await control.alerts(everything=True)) == 1
