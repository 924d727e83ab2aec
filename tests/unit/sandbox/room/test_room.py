"""The room of sandboxes with real parts: bubblewrap, snapshots, manifests, a folder of this node."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from retinue.host.opening import open_store
from retinue.host.sandboxes import open_sandboxes
from retinue.host.sandboxing import manifests_of
from retinue.host.settings import Settings, load_settings
from retinue.runs.errors import PermanentError, UnknownName
from retinue.runs.sandboxes import (
    Box,
    Exec,
    SandboxLost,
    SandboxOrder,
    SandboxOwner,
    SandboxRefused,
    SandboxState,
    SandboxStatus,
    Watch,
)
from retinue.sandbox.living import Living
from retinue.sandbox.manifests.pins import PinnedManifest, write_lock
from retinue.sandbox.mounts import mounted_below
from retinue.sandbox.room import Room
from retinue.store.store import Store

pytestmark = [pytest.mark.promise("E1", "E2", "E3"), pytest.mark.usefixtures("tested_once")]

MANIFEST = """
files:
  a.txt: hello
environment:
  WHO: ${SANDBOX_TEST_SECRET}
"""
ORDER = SandboxOrder("sbx-1", "coder", "coder")


def owner(epoch: int = 1, run_id: str = "r1", tenant: str = "acme") -> SandboxOwner:
    return SandboxOwner(tenant, run_id, run_id, "7" * 32, epoch)


@dataclass
class Node:
    """A node of a project, and the room of the process that has it."""

    settings: Settings
    store: Store
    room: Room

    async def move(self) -> None:
        """Another process of this node has it from here on."""
        await self.room.close()
        self.room = open_sandboxes(self.settings, self.store)


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setenv("SANDBOX_TEST_SECRET", "swordfish-and-chips")
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "coder.yaml").write_text(MANIFEST)
    (tmp_path / "retinue.yaml").write_text("data: data\n")
    settings = load_settings(tmp_path)
    store = open_store(settings)
    node = Node(settings, store, open_sandboxes(settings, store))
    yield node
    await node.room.close()
    await store.close()


async def said(box: Box, *argv: str) -> str:
    done = await box.exec(Exec(argv=argv))
    assert done.ok, done
    return done.stdout


async def test_a_workspace_is_made_from_its_manifest_and_its_record_says_all(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    assert await said(box, "cat", "a.txt") == "hello"
    assert await said(box, "sh", "-c", "test $WHO = swordfish-and-chips && echo $WHO") == "[SANDBOX_TEST_SECRET]\n"
    state = box.state
    assert (state.manifest, state.profile, state.backend, state.generation) == ("coder", "strict", "bubblewrap", 2)
    assert state.manifest_version.startswith("m1-") and state.confinement["files"] == "enforced"
    assert (state.entries, state.bytes, state.epoch, state.status) == (1, 5, 1, SandboxStatus.open)
    assert "swordfish" not in state.model_dump_json()


async def test_a_path_may_be_the_one_that_programs_see(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    path = (await said(box, "readlink", "-f", "a.txt")).strip()
    assert path.startswith("/") and (await box.read(path)).text == "hello"
    with pytest.raises(SandboxRefused):
        await box.read("/etc/passwd")
    assert (await box.write(path, b"hullo")).path == "a.txt" and await said(box, "cat", "a.txt") == "hullo"


async def test_another_process_goes_on_with_the_very_generation_and_with_no_other(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    await box.write("b.txt", b"bee")
    state = box.state
    await node.move()
    again = await node.room.attach(state, owner(2))
    assert again is not None and (await again.read("b.txt")).text == "bee"
    assert (again.state.generation, again.state.epoch) == (1, 2)
    await node.move()
    assert await node.room.attach(state.model_copy(update={"generation": 0}), owner(3)) is None
    assert await node.room.attach(again.state, owner(1)) is None  # an owner of old


async def test_a_workspace_that_nobody_waits_for_any_more_is_let_go_of(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = (await node.room.create(ORDER, owner())).state
    await node.move()
    begun, going = threading.Event(), threading.Event()
    find = Living.find

    def slow(self: Living, sandbox_id: str) -> object:
        found = find(self, sandbox_id)
        begun.set()
        assert going.wait(20)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Living, "find", slow)
        attaching = asyncio.create_task(node.room.attach(state, owner(2)))
        await asyncio.to_thread(begun.wait, 20)
        attaching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attaching
    going.set()
    async with asyncio.timeout(20):
        while True:
            if await node.room.attach(state, owner(2)) is not None:
                break
            await asyncio.sleep(0.005)


async def test_a_box_that_cannot_be_let_go_of_keeps_no_other_from_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [await node.room.create(SandboxOrder(f"sbx-{n}", f"c{n}", "coder"), owner()) for n in range(2)]

    async def broken(remove: bool) -> None:
        raise OSError("the folder cannot be removed")

    monkeypatch.setattr(boxes[0], "release", broken)
    await node.room.release("r1", ended=False)
    assert await node.room.attach(boxes[1].state, owner(2)) is not None


async def test_a_workspace_in_which_an_operation_was_cut_off_is_not_used_again(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    kept = await box.snapshot()
    began = asyncio.Event()
    watch = Watch(output=lambda stream, text: began.set())
    running = asyncio.create_task(box.exec(Exec(argv=("sh", "-c", "echo x > half; echo on; sleep 600")), watch))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(PermanentError, match="brought back"):
        await box.read("a.txt")
    assert await node.room.attach(kept, owner(2)) is None
    again = await node.room.restore(kept, owner(2))
    assert [entry.path for entry in await again.list()] == ["a.txt"]
    assert again.state.generation == kept.head_generation == 0


async def test_a_snapshot_is_forked_and_the_best_fork_adopted(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    head = (await box.snapshot()).head_snapshot_id
    forks = await asyncio.gather(
        *(
            node.room.create(SandboxOrder(f"fork-{n}", f"f{n}", "coder", head, "sbx-1"), owner(run_id=f"child-{n}"))
            for n in range(4)
        )
    )
    for number, fork in enumerate(forks):
        await fork.write("n.txt", str(number).encode())
    best = (await forks[2].snapshot()).head_snapshot_id
    assert best is not None and best != head
    adopted = await box.adopt(best)
    assert (adopted.head_snapshot_id, adopted.head_generation, adopted.generation) == (best, 1, 1)
    assert (await box.read("n.txt")).text == "2"
    if os.geteuid() == 0:
        users = {(await asyncio.to_thread(_tree(node, fork.state).stat)).st_uid for fork in forks}
        assert len(users) == 4 and 0 not in users


async def test_a_fork_rests_with_nothing_mounted_and_goes_on_as_it_was(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    head = (await box.snapshot()).head_snapshot_id
    fork = await node.room.create(SandboxOrder("fork", "fork", "coder", head, "sbx-1"), owner(run_id="child"))
    await fork.edit("a.txt", "hello", "good day")
    await fork.write("new/b.txt", b"bee")
    state = fork.state
    await node.move()
    work = node.settings.data_folder / "sandboxes" / "work"
    assert await asyncio.to_thread(mounted_below, work) == []
    again = await node.room.attach(state, owner(2, run_id="child"))
    assert again is not None and again.state.tier == state.tier
    assert [(await again.read(path)).text for path in ("a.txt", "new/b.txt")] == ["good day", "bee"]
    assert await said(again, "cat", "a.txt") == "good day"
    kept = await again.snapshot()
    assert kept.head_snapshot_id not in (None, head)


@pytest.mark.parametrize("snapshot", ["0" * 64, "s1-" + "0" * 64])
async def test_what_is_no_snapshot_is_neither_adopted_nor_opened(node: Node, snapshot: str) -> None:
    box = await node.room.create(ORDER, owner())
    with pytest.raises(SandboxRefused, match=f"{snapshot}.*no") as refused:
        await box.adopt(snapshot)
    assert refused.value.code == "no_snapshot"
    assert (await box.read("a.txt")).text == "hello"
    with pytest.raises(SandboxRefused, match=snapshot):
        await node.room.create(SandboxOrder("sbx-2", "two", "coder", snapshot), owner())


async def test_what_is_ended_is_removed_and_what_waits_stays(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    other = await node.room.create(SandboxOrder("sbx-2", "two", "coder"), owner(run_id="r2"))
    await node.room.release("r1", ended=False)
    await node.room.release("r2", ended=True)
    assert _tree(node, box.state).is_dir() and not _tree(node, other.state).exists()
    asked: list[list[str]] = []

    async def done(ids: list[str]) -> list[str]:
        asked.append(ids)
        return ids

    assert await node.room.sweep(done) == 1
    assert "sbx-1" in asked[0] and not _tree(node, box.state).exists()


async def test_a_workspace_that_cannot_be_made_again_is_lost(node: Node, tmp_path: Path) -> None:
    box = await node.room.create(ORDER, owner())
    state = box.state
    (tmp_path / "sandbox" / "coder.yaml").write_text(MANIFEST.replace("hello", "good day"))
    await node.move()
    with pytest.raises(SandboxLost, match="bring that version back"):
        await node.room.restore(state, owner(2))
    with pytest.raises(SandboxLost, match="not in the store"):
        await node.room.restore(state.model_copy(update={"head_snapshot_id": "s1-" + "0" * 64}), owner(2))
    work = node.settings.data_folder / "sandboxes" / "work" / "sbx-1"
    assert await asyncio.to_thread(list, work.iterdir()) == []


async def test_a_record_names_what_a_snapshot_leaves_out_within_bounds(node: Node) -> None:
    """It goes into the journal with every move of the sandbox."""
    box = await node.room.create(ORDER, owner())
    many = "for n in $(seq 1000); do echo f$n-$(printf %0200d 0); done | xargs mkfifo"
    await said(box, "sh", "-c", many)
    omitted = (await box.snapshot()).omitted
    assert len(omitted) == 101 and omitted[-1] == "and more"
    assert all(name.endswith("0 (fifo)") and len(name) <= 200 for name in omitted[:-1])


async def test_a_secret_is_kept_by_no_snapshot(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    await said(box, "sh", "-c", "echo $WHO > leaked.txt")
    with pytest.raises(SandboxRefused, match=r"leaked\.txt") as refused:
        await box.snapshot()
    assert "swordfish" not in str(refused.value)


async def test_a_name_that_is_no_manifest_is_told(node: Node) -> None:
    with pytest.raises(UnknownName, match="coder"):
        node.room.manifest("coderr")


async def test_a_manifest_that_was_pinned_is_used_only_so(node: Node) -> None:
    folder = node.settings.folder
    (folder / "src").mkdir()
    (folder / "src" / "a.py").write_text("one")
    (folder / "sandbox" / "coder.yaml").write_text("directories: {src: src}\n")
    manifests = manifests_of(node.settings)
    loaded = manifests.loaded("coder")
    pinned = PinnedManifest(
        by="ana", at="2026-11-21T00:00:00Z", version=loaded.info.version, revision=1, facts=dict(loaded.facts)
    )
    write_lock(folder, "coder", pinned)
    assert node.room.manifest("coder").reviewed_by == "ana"
    box = await node.room.create(ORDER, owner())
    assert box.state.manifest_version == loaded.info.version
    (folder / "src" / "a.py").write_text("two")
    with pytest.raises(SandboxRefused, match="not as ana pinned it") as refused:
        await node.room.create(SandboxOrder("sbx-2", "other", "coder"), owner())
    assert refused.value.code == "manifest"
    (folder / "sandbox" / "coder.yaml").write_text("files: {b: x}\n")
    assert await said(box, "cat", "src/a.py") == "one"  # it goes on as it was made
    assert (await box.read("src/a.py")).text == "one"
    (folder / "sandbox" / "coder.yaml").write_text("directories: {src: src}\n")
    write_lock(folder, "coder", None)
    other = await node.room.create(SandboxOrder("sbx-3", "third", "coder"), owner())
    assert other.state.manifest_version != loaded.info.version and (await other.read("src/a.py")).text == "two"


@pytest.mark.promise("E4")
async def test_a_sandbox_is_not_brought_back_where_it_would_be_confined_less(node: Node) -> None:
    box = await node.room.create(ORDER, owner())
    state = box.state
    better = state.model_copy(update={"confinement": {**state.confinement, "disk": "enforced"}})
    await node.move()
    with pytest.raises(SandboxRefused, match="confined better where it was made"):
        await node.room.restore(better, owner(2))


def _tree(node: Node, state: SandboxState) -> Path:
    return node.settings.data_folder / "sandboxes" / "work" / state.sandbox_id / "1" / "tree"
