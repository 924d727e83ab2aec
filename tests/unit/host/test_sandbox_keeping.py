"""The duty of a host: workspaces that are done with go, snapshots nobody uses go, and nothing else."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import pytest
from tests.doubles.processes import python
from tests.doubles.shapes import START, host, new_run, own, said

from retinue.host import sandbox_keeping
from retinue.host.clock import now_ns
from retinue.host.opening import open_store
from retinue.host.sandbox_keeping import Keeping, SandboxDuty, Sweeping, collect_snapshots, drop_lost_bases
from retinue.host.sandboxes import bases_of, open_sandboxes, open_snapshots
from retinue.host.settings import Settings, load_settings
from retinue.runs.sandboxes import SandboxRow, SandboxState
from retinue.sandbox.snapshots.scanning import scan
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import Tree
from retinue.store.store import Store

pytestmark = pytest.mark.promise("E2")

FUTURE = now_ns() + 10**15
"""Later than any snapshot of these tests."""


@asynccontextmanager
async def at(folder: Path) -> AsyncIterator[tuple[Settings, Store, Snapshots]]:
    """A project with its store and snapshots."""
    (folder / "retinue.yaml").write_text("principal: bob\n")
    settings = load_settings(folder)
    store = open_store(settings)
    await store.register(host())
    try:
        yield settings, store, open_snapshots(settings, store)
    finally:
        await store.close()


def state(name: str, head: str | None = None, node: str = "here") -> SandboxState:
    return SandboxState(
        sandbox_id=name,
        name=name,
        manifest="coder",
        manifest_version="m1",
        profile="strict",
        profile_digest="p1",
        head_snapshot_id=head,
        node=node,
        changed_at=START,
    )


async def taken(snapshots: Snapshots, folder: Path, *texts: str) -> list[str]:
    """The ids of snapshots of a file with each text."""
    await asyncio.to_thread(folder.mkdir)
    found = []
    for text in texts:
        (folder / "a").write_text(text)
        found.append((await snapshots.take(folder, "acme")).snapshot_id)
    return found


@pytest.mark.rule("R5")
async def test_snapshots_stay_while_a_run_needs_them(tmp_path: Path) -> None:
    async with at(tmp_path) as (_, store, snapshots):
        first, second, spare = await taken(snapshots, tmp_path / "work", "1", "2", "3")
        await store.submit([new_run("first")])
        owner = await own(store, "first")
        rows = [SandboxRow(state("box", head), "t" * 32) for head in (first, second)]
        await owner.append(said("kept"), sandboxes=tuple(rows))
        found = await collect_snapshots(Keeping(store, snapshots, FUTURE, FUTURE, dry=True))
        assert (found["acme"].snapshots, found["acme"].kept) == ((spare,), 2)
        assert await collect_snapshots(Keeping(store, snapshots, FUTURE, FUTURE)) == found
        assert [kept.snapshot_id for kept in await snapshots.listed("acme")] == [first, second]
        await owner.finish()
        assert (await collect_snapshots(Keeping(store, snapshots, START, FUTURE)))["acme"].snapshots == ()
        late = await collect_snapshots(Keeping(store, snapshots, FUTURE, START))
        assert late["acme"].snapshots == (), "taken a moment ago"
        assert len((await collect_snapshots(Keeping(store, snapshots, FUTURE, FUTURE)))["acme"].snapshots) == 2


@pytest.mark.promise("I6")
async def test_the_snapshots_of_a_tenant_whose_key_was_destroyed_go(tmp_path: Path) -> None:
    async with at(tmp_path) as (_, store, snapshots):
        await taken(snapshots, tmp_path / "work", "1")
        await snapshots.take(tmp_path / "work", "zeta")
        assert await asyncio.to_thread(store.vault.destroy, "acme")
        folders = tmp_path / ".retinue" / "sandboxes" / "snapshots"
        assert (await collect_snapshots(Keeping(store, snapshots, START, START, dry=True)))["acme"].bytes > 0
        assert sorted(path.name for path in folders.iterdir() if path.is_dir()) == ["acme", "zeta"]
        await collect_snapshots(Keeping(store, snapshots, START, START))
        assert [path.name for path in folders.iterdir() if path.is_dir()] == ["zeta"]
        assert list(await collect_snapshots(Keeping(store, snapshots, START, START))) == ["zeta"]


async def test_a_workspace_that_no_record_tells_of_goes_after_a_while(tmp_path: Path) -> None:
    async with at(tmp_path) as (_, store, _snapshots):
        await store.submit([new_run("first")])
        owner = await own(store, "first")
        rows = (SandboxRow(state("open"), "t" * 32), SandboxRow(state("moved", node="there"), "t" * 32))
        await owner.append(said("opened"), sandboxes=rows)
        patient = Sweeping(store, "here")
        assert await patient.done(["open", "moved", "never"]) == ["moved"]
        assert await patient.done(["open", "moved", "never"]) == ["moved"], "it may be on its way"
        assert await Sweeping(store, "here", patience=0.0).done(["open", "moved", "never"]) == ["moved", "never"]
        await owner.finish()
        assert await patient.done(["open"]) == ["open"]


async def left_behind(tmp_path: Path, store: Store) -> Path:
    """A workspace here of a sandbox that has moved to another node."""
    left = tmp_path / ".retinue" / "sandboxes" / "work" / "gone" / "1"
    left.mkdir(parents=True)
    (left / "lock").touch()
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    await owner.append(said("opened"), sandboxes=(SandboxRow(state("gone", node="elsewhere"), "t" * 32),))
    return left


async def test_a_round_sweeps_and_collects_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at(tmp_path) as (settings, store, snapshots):
        room = open_sandboxes(settings, store)
        duty = SandboxDuty(settings, store, room)
        [spare] = await taken(snapshots, tmp_path / "work", "1")
        monkeypatch.setattr(
            sandbox_keeping, "keeping_of", lambda settings, store: Keeping(store, snapshots, FUTURE, FUTURE)
        )
        left = await left_behind(tmp_path, store)
        await duty.round()
        assert not left.exists() and not await snapshots.exists(spare, "acme")
        await snapshots.take(tmp_path / "work", "acme")
        await duty.round()
        assert await snapshots.exists(spare, "acme"), "it was done a moment ago"
        mark = tmp_path / ".retinue" / "sandboxes" / "collected"
        os.utime(mark, (now_ns() / 1e9 - sandbox_keeping.COLLECT - 1,) * 2)
        await duty.round()
        assert not await snapshots.exists(spare, "acme")
        await room.close()


async def test_a_process_that_lives_shortly_tidies_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_keeping, "FIRST", 0.0)
    async with at(tmp_path) as (settings, store, _):
        room = open_sandboxes(settings, store)
        left = await left_behind(tmp_path, store)
        tending = asyncio.create_task(SandboxDuty(settings, store, room).tend_for_ever())
        async with asyncio.timeout(10):
            while True:
                if not left.exists():
                    break
                await asyncio.sleep(0.01)
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await room.close()


async def test_a_round_survives_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with at(tmp_path) as (settings, store, snapshots):
        await taken(snapshots, tmp_path / "work", "1")
        for path in (tmp_path / ".retinue" / "sandboxes" / "snapshots" / "acme").rglob("*"):
            if path.is_file():
                path.write_bytes(b"no more what it was")
        duty = SandboxDuty(settings, store, open_sandboxes(settings, store))
        await duty.round()
        assert "could not be" in caplog.text


@pytest.mark.promise("I6")
async def test_plain_copies_of_what_was_erased_on_another_node_go(tmp_path: Path) -> None:
    """Also when the tenant has come back since: a key is there, and the snapshot of the copy is not."""
    async with at(tmp_path) as (settings, store, snapshots):
        bases = bases_of(settings)
        await taken(snapshots, tmp_path / "work", "1")
        for tenant in ("acme", "zeta"):
            kept = (await snapshots.take(tmp_path / "work", tenant)).snapshot_id
            with bases.held(tenant, kept, plain, Event()):
                assert bases.kept(tenant) == [kept]
        assert await drop_lost_bases(settings, store) == 0
        await asyncio.to_thread(store.vault.destroy, "acme")
        await asyncio.to_thread(store.vault.prepare, "acme", make=True)
        assert await drop_lost_bases(settings, store) == 1
        assert bases.kept("acme") == [] and len(bases.kept("zeta")) == 1


def plain(into: Path) -> Tree:
    into.mkdir()
    return scan(into)


LEAVES = """
import sys
from pathlib import Path
from retinue.sandbox.scratch import take
print("left", take().folder, take(Path(sys.argv[1]), ".trial-").folder, flush=True)
sys.stdin.readline()
"""


@pytest.mark.promise("E4")
async def test_a_round_removes_what_a_killed_process_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary, cache = tmp_path / "tmp", tmp_path / ".retinue" / "sandboxes" / "cache"
    for folder in (temporary, cache):
        folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    async with at(tmp_path) as (settings, store, _):
        duty = SandboxDuty(settings, store, open_sandboxes(settings, store))
        with python(LEAVES, cache) as other:
            left = [Path(word) for word in other.wait_for("left").split()[1:]]
            await duty.round()
            assert all(folder.is_dir() for folder in left)
            other.kill()
            await duty.round()
            assert not any(folder.exists() for folder in left)
