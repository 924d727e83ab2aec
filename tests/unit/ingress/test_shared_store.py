"""Commands on a machine that has the store's address and nothing else of the runtime: no second one is started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.doubles.places import Place, Places
from tests.doubles.projects import project
from tests.unit.ingress.conftest import Command

from retinue.actors.runtime import RuntimeFailed
from retinue.host import clock
from retinue.host.composition import load_project, make_host
from retinue.host.hosting import HostShape
from retinue.host.opening import open_store, serving_hosts
from retinue.host.presence import find_runtime, runtime_of
from retinue.host.settings import Settings
from retinue.ingress.connecting import connect
from retinue.runs.ownership import HostInfo
from retinue.store.liveness import boot_id

BOUND = 30.0
GONE = 2**22 + 1
"""A process id that no process has."""

pytestmark = pytest.mark.promise("C3", "K2")


@pytest.fixture
def shared(places: Places, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A database, and no Ray that is known here."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with places.new("postgres") as place:
        yield place


def here(folder: Path, place: Place) -> Settings:
    """A project over the place, in a folder of its own, as each machine has one."""
    return project(folder, modules=["tests.unit.host.desk"], settings={"store": place.url})


def info(kind: str = "run", boot: str = "elsewhere", pid: int = GONE) -> HostInfo:
    return HostInfo(clock.new_run_id(), kind, pid, 1.0, boot, f"node of {boot}", "actor-1")


async def announce(settings: Settings, *hosts: HostInfo) -> None:
    """Register hosts that nobody tends."""
    store = open_store(settings)
    for host in hosts:
        await store.register(host)
    await store.close()


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[None]:
    """A host as a RunActor of another machine has it, serving."""
    store = open_store(settings)
    host = make_host(load_project(settings), store, HostShape(("runs", "workers")), "run", "actor-1")
    host.info = replace(host.info, boot_id="elsewhere", node="node of elsewhere")
    serving = asyncio.create_task(host.serve())
    try:
        async with asyncio.timeout(BOUND):
            while not await asyncio.to_thread(runtime_of, settings):  # noqa: ASYNC110 - the database has no event
                await asyncio.sleep(0.02)
        yield
    finally:
        host.stop()
        await serving
        await store.close()


async def test_a_run_is_submitted_and_awaited_through_the_store_alone(tmp_path: Path, shared: Place) -> None:
    async with served(here(tmp_path / "there", shared)):
        settings = here(tmp_path / "here", shared)
        async with connect(settings=settings) as client:
            handle = await client.submit("clerk", "What is it?")
            assert await handle.result(BOUND) == "42"
            assert (await client.get(handle.run_id)).pool == "runs"
        assert find_runtime(settings.data_folder) is None
        assert not (settings.data_folder / "logs").exists(), "no Ray was started here"


async def test_the_tables_are_refused_with_a_remedy_where_the_runtimes_ray_is_not_known(
    tmp_path: Path, shared: Place
) -> None:
    async with served(here(tmp_path / "there", shared)):
        settings = here(tmp_path / "here", shared)
        async with connect(settings=settings, start=False) as client:
            with pytest.raises(RuntimeFailed, match=r"Ray cluster that is not known here.*`cluster:` or RAY_ADDRESS"):
                await client.query("SELECT 1")
        assert not (settings.data_folder / "traces").exists(), "no tables of its own were made from the whole journal"


async def test_beside_a_runtime_elsewhere_a_local_command_is_a_guest(tmp_path: Path, shared: Place) -> None:
    settings = here(tmp_path / "here", shared)
    async with served(here(tmp_path / "there", shared)), connect(settings=settings, local=True) as client:
        handle = await client.submit("clerk", "What is it?")
        assert await handle.result(BOUND) == "42"
        assert (await client.get(handle.run_id)).pool not in ("runs", "workers")


async def test_only_hosts_of_a_runtime_that_show_themselves_serve(tmp_path: Path, shared: Place) -> None:
    settings = here(tmp_path, shared)
    assert runtime_of(settings) is None, "nobody has opened the store yet"
    await announce(settings, info("inline"), info("worker"), info(boot=boot_id()))
    assert runtime_of(settings) is None, "an inline host, a worker and a dead process of this machine are no runtime"
    await announce(settings, info())
    found = runtime_of(settings)
    assert found is not None and (found.node, found.address) == ("node of elsewhere", "")
    assert len(serving_hosts(settings)) == 3
    assert shared.url is not None
    with psycopg.connect(shared.url) as connection:
        connection.execute("UPDATE hosts SET beat = beat - 16")
    assert runtime_of(settings) is None, "silent for longer than a lease"


def test_status_shows_the_hosts_by_node_and_up_starts_no_second_runtime(
    tmp_path: Path, shared: Place, retinue: Command
) -> None:
    settings = here(tmp_path, shared)
    where = ("--project", settings.folder)
    asyncio.run(announce(settings))
    said = retinue("status", *where)
    assert (said.code, "`retinue up` starts one" in said.out) == (6, True)
    asyncio.run(announce(settings, info(), info("worker", "another")))
    said = retinue("status", *where)
    assert said.code == 0, said
    assert "name its Ray in `cluster:` or RAY_ADDRESS" in said.out
    lines = [line.split() for line in said.out.splitlines() if line.startswith("node of")]
    assert [(line[2], line[3], line[5]) for line in lines] == [("another", "worker", "0"), ("elsewhere", "run", "0")]
    told = retinue("status", "--json", *where).json
    assert [host["kind"] for host in told["hosts"]] == ["worker", "run"] and told["alive"]
    for words in (["up"], ["down"], ["drain", "runs"]):
        refused = retinue(*words, *where)
        assert refused.code == 6 and "is not known here" in refused.err, words
    assert find_runtime(settings.data_folder) is None
