"""Following a run: what is streamed comes whole, and nothing is read while nothing is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.worlds import World, world

from retinue.host.settings import load_settings
from retinue.ingress import controls
from retinue.ingress.controls import Controls
from retinue.ingress.events import events_of
from retinue.runs.context import Context
from retinue.runs.definitions import workflow
from retinue.runs.journal import Frame, Record


@workflow
async def waits(ctx: Context, _: Any) -> str:
    return str(await ctx.event("go"))


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[World]:
    async with world("sqlite", tmp_path, waits) as found:
        yield found


async def test_a_quiet_run_is_followed_without_reading(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "_POLL", 0)
    run_id = await made.submit(waits)
    await made.settle()
    counts = {"deltas": 0, "version": 0}
    for name in counts:
        monkeypatch.setattr(made.store, name, counting(getattr(made.store, name), name, counts))
    events = Controls(load_settings(tmp_path), made.store).events(run_id)
    kinds = [(await anext(events)).kind]
    while kinds[-1] != "parked":
        kinds.append((await anext(events)).kind)
    following = asyncio.create_task(anext(events))
    await made.until(lambda: counts["version"] >= 20)
    assert counts["deltas"] == 1 and not following.done()
    await made.store.signal(run_id, "go", "on", made.clock())
    await made.settle()
    assert (await following).kind == "leased"
    assert [event.kind async for event in events][-1] == "finished"


def counting(method: Any, name: str, counts: dict[str, int]) -> Any:
    """The method, counted."""

    def counted(*arguments: Any) -> Any:
        counts[name] += 1
        return method(*arguments)

    return counted


async def test_more_text_than_one_page_of_the_store_comes_before_the_end(made: World, tmp_path: Path) -> None:
    run_id = await made.submit(waits)
    await made.settle()
    pieces = [f"{number} " for number in range(2_500)]
    await made.store.stream([(run_id, "k", 1, piece) for piece in pieces])
    events = [event async for event in Controls(load_settings(tmp_path), made.store).events(run_id, follow=False)]
    assert [event.text for event in events if event.kind == "delta"] == pieces


def test_what_becomes_of_a_sandbox_and_what_runs_in_it_is_told_in_words() -> None:
    moved = Record(at=1, topic="sandbox", facts={"name": "work", "event": "moved", "cause": "2 calls made again"})
    content = {"stdout": "one\ntwo\x1b[2J\n\n"}
    output = Record(at=1, topic="output", facts={"key": "0/shell#0", "bytes": {"stdout": 9}}, content=content)
    frame = Frame(seq=1, run_id="r", tenant_id="t", position=3, epoch=1, entries=(moved, output))
    assert [(one.name, one.text) for one in events_of(frame)] == [
        ("sandbox", "sandbox work: moved (2 calls made again)"),
        ("output", "0/shell#0 writes: two[2J"),
    ]
