"""An inline host beside a runtime: what it cannot finish is the runtime's when it has gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.doubles.projects import project

from retinue.host.composition import load_project
from retinue.host.inline import inline_host
from retinue.host.settings import Settings
from retinue.ingress.client import Client
from retinue.runs.contracts import RunRecord
from retinue.store.sqlite import SqliteStore

_BOUND = 20.0


async def parked(client: Client, run_id: str) -> RunRecord:
    """The record of a run when it waits and holds nothing."""
    async with asyncio.timeout(_BOUND):
        while True:
            record = await client.get(run_id)
            if record.status == "waiting":
                return record
            await asyncio.sleep(0.005)


async def left_waiting(settings: Settings) -> str:
    """Submit through a host beside a runtime, which goes when the run waits."""
    store = SqliteStore(settings.data_folder)
    async with inline_host(load_project(settings), store, alone=False) as (pool, _):
        client = Client(settings, store, pool)
        run_id = (await client.submit("waits", 0)).run_id
        assert (await parked(client, run_id)).pool == pool != "runs"
        await client.close()
    await store.close()
    return run_id


@pytest.mark.promise("A7", "K2")
async def test_what_waits_when_a_guest_goes_is_carried_on_by_the_runtime(tmp_path: Path) -> None:
    settings = project(tmp_path, modules=["tests.unit.host.desk"])
    run_id = await left_waiting(settings)
    store = SqliteStore(settings.data_folder)
    async with inline_host(load_project(settings), store, alone=True) as (pool, _):
        client = Client(settings, store, pool)
        await client.signal(run_id, "go")
        assert (await client.wait(run_id, _BOUND)).value == "waited"
        await client.close()
    await store.close()
