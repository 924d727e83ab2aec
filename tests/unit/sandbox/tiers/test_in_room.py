"""Fast ways in a whole node: programs run in workspaces that were made by one, and what a crash leaves is cleared."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.doubles.s3 import bucket, s3_server  # noqa: F401 - fixtures

from retinue.host.opening import open_store
from retinue.host.sandboxes import open_sandboxes
from retinue.host.settings import load_settings
from retinue.runs.sandboxes import Box, Exec, SandboxOrder, SandboxOwner
from retinue.sandbox.emptying import OVERLAYFS, TREE
from retinue.sandbox.mounts import mounted_below, unmount_below
from retinue.sandbox.room import Room

pytestmark = pytest.mark.promise("E3")
Opened = Callable[..., Room]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens the room of a process on a node; all that is mounted is unmounted at the end."""
    project = tmp_path / "project"
    (project / "sandbox").mkdir(parents=True)
    (project / "sandbox" / "coder.yaml").write_text("files:\n  a.txt: hello\n  b.txt: stays\n")
    (project / "retinue.yaml").write_text("data: data\n")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o011 != 0o011:
            folder.chmod(folder.stat().st_mode | 0o011)
    rooms = []
    settings = load_settings(project)
    store = open_store(settings)

    def open_one(node: str = "node", place: str | None = None) -> Room:
        sandbox = settings.sandbox.model_copy(update={"snapshots": place})
        own = settings.model_copy(update={"data": tmp_path / node, "sandbox": sandbox})
        rooms.append(open_sandboxes(own, store))
        return rooms[-1]

    yield open_one
    for room in rooms:
        await room.close()
    await store.close()
    unmount_below(tmp_path)


def owner(run_id: str = "r1", epoch: int = 1) -> SandboxOwner:
    return SandboxOwner("acme", run_id, run_id, "7" * 32, epoch)


async def said(box: Box, *argv: str) -> str:
    done = await box.exec(Exec(argv=argv))
    assert done.exit_code == 0, done
    return done.stdout


async def forked(room: Room, count: int) -> tuple[Box, list[Box]]:
    """A sandbox with a snapshot, and forks of it."""
    first = await room.create(SandboxOrder("first", "coder", "coder"), owner())
    await said(first, "sh", "-c", "echo work > made; mkdir deep; echo x > deep/file")
    snapshot_id = (await first.snapshot()).head_snapshot_id
    orders = [SandboxOrder(f"fork-{number}", "coder", "coder", snapshot_id, "first") for number in range(count)]
    return first, list(await asyncio.gather(*(room.create(order, owner()) for order in orders)))


async def test_programs_run_in_forks_and_the_best_one_is_adopted(opened: Opened, tmp_path: Path) -> None:
    room = opened()
    first, forks = await forked(room, 3)
    for number, fork in enumerate(forks):
        assert await said(fork, "cat", "made", "b.txt") == "work\nstays"
        await said(fork, "sh", "-c", f"echo {number} >> made; rm b.txt; mv deep moved; ls -la")
    assert {fork.state.tier for fork in forks} == {forks[0].state.tier} != {""}
    best = (await forks[2].snapshot()).head_snapshot_id
    assert best is not None
    await first.adopt(best)
    assert await said(first, "sh", "-c", "cat made moved/file; ls") == "work\n2\nx\na.txt\nmade\nmoved\n"
    assert await said(forks[0], "cat", "made") == "work\n0\n"
    for box in (first, *forks):
        await box.close()
    assert mounted_below(tmp_path) == []


def lose_bases(folder: Path) -> None:
    """Somebody has removed the cache."""
    for base in list(folder.glob(f"*/sandboxes/cache/**/{TREE}")):
        base.rename(base.with_name("gone"))


async def test_the_next_process_has_the_workspace_unless_its_base_is_gone(opened: Opened, tmp_path: Path) -> None:
    room = opened()
    _, forks = await forked(room, 2)
    await said(forks[0], "sh", "-c", "echo more > more")
    await room.close()
    assert mounted_below(tmp_path) == [], "what rests is not mounted"
    room = opened()
    there = await room.attach(forks[0].state, owner(epoch=2))
    assert there is not None
    assert await said(there, "cat", "more", "made") == "more\nwork\n"
    if forks[1].state.tier != OVERLAYFS:
        pytest.skip("overlayfs does not work here: nothing stands on a base")
    await asyncio.to_thread(lose_bases, tmp_path)
    assert await room.attach(forks[1].state, owner(epoch=2)) is None
    back = await room.restore(forks[1].state, owner(epoch=2))
    assert await said(back, "cat", "made") == "work\n"


async def test_what_a_dead_owner_left_mounted_is_replaced(opened: Opened, tmp_path: Path) -> None:
    room = opened()
    _, forks = await forked(room, 1)
    await said(forks[0], "sh", "-c", "echo spoiled > made")
    await room.close()
    again = await opened().create(
        SandboxOrder("fork-0", "coder", "coder", forks[0].state.head_snapshot_id), owner("r2", epoch=3)
    )
    assert await said(again, "cat", "made") == "work\n"
    assert len([each for each in mounted_below(tmp_path) if "fork-0" in each.parts]) <= 1


async def test_another_node_goes_on_from_the_common_place(
    opened: Opened,
    bucket: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    for number, place in enumerate((f"{bucket}/snapshots", f"file://{tmp_path}/shared")):
        here, there = opened(f"here-{number}", place), opened(f"there-{number}", place)
        first, _ = await forked(here, 0)
        back = await there.restore(first.state, owner(epoch=2))
        assert await said(back, "cat", "made", "a.txt") == "work\nhello"
        assert back.state.head_snapshot_id == first.state.head_snapshot_id
        assert not (tmp_path / f"here-{number}" / "sandboxes" / "snapshots").exists()
