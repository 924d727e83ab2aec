"""A disk that fails under a box: what was done is told or undone, and no lock and no workspace is held for good."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinue.host.opening import open_store
from retinue.host.sandboxes import open_sandboxes
from retinue.host.settings import load_settings
from retinue.runs.errors import EffectError, PermanentError
from retinue.runs.sandboxes import Exec, SandboxOrder, SandboxOwner
from retinue.sandbox import contents, living
from retinue.sandbox.emptying import empty_place
from retinue.sandbox.living import Living, Workplace
from retinue.sandbox.room import Room

pytestmark = [pytest.mark.promise("E1", "E2"), pytest.mark.usefixtures("tested_once")]

ORDER = SandboxOrder("sbx-1", "coder", "coder")


def owner(epoch: int = 1) -> SandboxOwner:
    return SandboxOwner("acme", "r1", "r1", "7" * 32, epoch)


@pytest.fixture
async def room(tmp_path: Path) -> Any:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "coder.yaml").write_text("files:\n  a.txt: hello\n")
    (tmp_path / "retinue.yaml").write_text("data: data\n")
    settings = load_settings(tmp_path)
    store = open_store(settings)
    room = open_sandboxes(settings, store)
    yield room
    await room.close()
    await store.close()


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_change_whose_end_cannot_be_noted_leaves_the_workspace_to_be_brought_back(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await room.create(ORDER, owner())
    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "finish", full)
        with pytest.raises(EffectError, match="No space left"):
            await box.write("b.txt", b"bee")
    with pytest.raises(PermanentError, match="brought back"):
        await box.read("b.txt")
    assert box.state.generation == 0 and await room.attach(box.state, owner(2)) is None
    again = await room.restore(box.state, owner(2))
    assert [entry.path for entry in await again.list()] == ["a.txt"]


async def test_an_adoption_whose_end_cannot_be_noted_does_so_too(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await room.create(ORDER, owner())
    await box.write("b.txt", b"bee")
    head = (await box.snapshot()).head_snapshot_id
    assert head is not None
    await box.write("c.txt", b"sea")
    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "finish", full)
        with pytest.raises(EffectError, match="No space left"):
            await box.adopt(head)
    with pytest.raises(PermanentError, match="brought back"):
        await box.read("b.txt")


async def test_a_change_whose_beginning_cannot_be_noted_is_not_made(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await room.create(ORDER, owner())
    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "begin", full)
        with pytest.raises(EffectError, match="No space left"):
            await box.exec(Exec(argv=("touch", "b.txt")))
    assert [entry.path for entry in await box.list()] == ["a.txt"] and box.state.generation == 0


async def test_a_workspace_that_cannot_be_made_is_told_as_an_error_of_the_sandbox(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Living, "make", full)
    with pytest.raises(EffectError, match="No space left"):
        await room.create(ORDER, owner())


async def test_a_workspace_that_cannot_be_removed_is_held_by_nobody(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await room.create(ORDER, owner())
    with monkeypatch.context() as patch:
        patch.setattr(living, "empty_place", full)
        with pytest.raises(EffectError, match="No space left"):
            await box.close()

    async def done(ids: list[str]) -> list[str]:
        return ids

    assert await room.sweep(done) == 1


async def test_an_adoption_that_is_canceled_has_ended_before_the_workspace_is_made_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await room.create(ORDER, owner())
    head = await box.snapshot()
    assert head.head_snapshot_id is not None
    begun, going = threading.Event(), threading.Event()
    monkeypatch.setattr(contents, "empty_place", _slow(begun, going))
    adopting = asyncio.create_task(box.adopt(head.head_snapshot_id))
    await asyncio.to_thread(begun.wait, 20)
    adopting.cancel()
    done, _ = await asyncio.wait({adopting}, timeout=0.05)
    assert not done
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await adopting
    again = await room.restore(head, owner(2))
    assert (await again.read("a.txt")).text == "hello"


def _slow(begun: threading.Event, going: threading.Event) -> Callable[[Path], None]:
    def empty(folder: Path) -> None:
        begun.set()
        assert going.wait(20)
        empty_place(folder)

    return empty
