"""Workspaces of a node, taken and removed by several at once: each has one owner, and nothing stays of what is gone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from retinue.runs.sandboxes import SandboxState
from retinue.sandbox import living as living_module
from retinue.sandbox.living import Living

pytestmark = pytest.mark.promise("E1")

STATE = SandboxState(
    sandbox_id="sbx", name="work", manifest="coder", manifest_version="m1", profile="strict", profile_digest="p1"
)


def nobody(sandbox_id: str, folder: Path) -> None:
    return None


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path / "work", "boot")


def test_what_a_process_left_that_died_before_it_had_a_lock_is_removed(living: Living, tmp_path: Path) -> None:
    (tmp_path / "work" / "sbx" / "1").mkdir(parents=True)
    assert living.find("sbx") is None
    assert living.remove("sbx") == 1 and list(living.all()) == []


def test_a_workspace_that_cannot_be_looked_at_is_held_by_nobody(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = living.make(STATE, nobody)
    place.finish(STATE)
    place.let_go()

    def broken(*arguments: object) -> bool:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(living_module, "wake_place", broken)
        with pytest.raises(OSError, match="the disk is gone"):
            living.find("sbx")
    again = living.find("sbx")
    assert again is not None
    again.let_go()


@pytest.mark.rule("R5")
def test_one_whose_removal_was_cut_off_is_not_used_again(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    place = living.make(STATE, nobody)
    place.tree.mkdir()
    place.finish(STATE)

    def cut_off(folder: Path) -> None:
        place.tree.rmdir()
        raise OSError("the process is killed here")

    with monkeypatch.context() as patch:
        patch.setattr(living_module, "empty_place", cut_off)
        with pytest.raises(OSError, match="killed here"):
            place.remove()
    assert living.find("sbx") is None and living.remove("sbx") == 1


def test_whoever_makes_one_while_another_removes_what_is_there_has_it(living: Living) -> None:
    over, removed, failed = threading.Event(), list[int](), list[BaseException]()

    def remove() -> None:
        try:
            while not over.is_set():
                removed.append(living.remove("sbx"))
        except BaseException as error:
            failed.append(error)

    removers = [threading.Thread(target=remove) for _ in range(3)]
    for remover in removers:
        remover.start()
    try:
        for _ in range(300):
            place = living.make(STATE, nobody)
            place.tree.mkdir()
            place.finish(STATE)
            assert place.tree.is_dir()
            place.let_go()
    finally:
        over.set()
        for remover in removers:
            remover.join(20)
    assert not failed
