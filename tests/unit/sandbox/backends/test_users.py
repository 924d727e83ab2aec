"""Users of sandboxes: one each, the same for as long as its workspace is there, and none lost to a crash."""

from __future__ import annotations

import fcntl
import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from retinue.runs.errors import ConfigError, TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox import users as users_module
from retinue.sandbox.users import Users, parse_range


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def users(tmp_path: Path, count: int = 3) -> Users:
    return Users(600_000, 600_000 + count - 1, tmp_path / "state")


def workspace(work: Path, name: str) -> Path:
    made = work / name
    made.mkdir(exist_ok=True)
    return made


def test_each_sandbox_has_a_user_and_keeps_it(tmp_path: Path, work: Path) -> None:
    one, two = workspace(work, "one"), workspace(work, "two")
    first = users(tmp_path).take("one", one)
    assert 600_000 <= first <= 600_002
    assert users(tmp_path).take("two", two) != first
    assert users(tmp_path).take("one", one) == first


def test_a_number_rests_before_it_is_used_again(tmp_path: Path, work: Path) -> None:
    mine = users(tmp_path)
    first = mine.take("one", workspace(work, "one"))
    (work / "one").rmdir()
    assert mine.take("two", workspace(work, "two")) != first


def test_a_full_range_is_refused_until_a_workspace_is_gone(tmp_path: Path, work: Path) -> None:
    mine = users(tmp_path, 2)
    taken = [mine.take(name, workspace(work, name)) for name in ("one", "two")]
    assert sorted(taken) == [600_000, 600_001]
    with pytest.raises(SandboxRefused, match=r"all 2 users of `sandbox: uids: 600000-600001` are taken"):
        mine.take("three", workspace(work, "three"))
    (work / "one").rmdir()
    assert mine.take("three", work / "three") == taken[0]


def test_nothing_is_remembered_of_workspaces_that_are_gone(tmp_path: Path, work: Path) -> None:
    mine = users(tmp_path, 1_000)
    workspace(work, "stays")
    stays = mine.take("stays", work / "stays")
    for number in range(50):
        mine.take(str(number), workspace(work, str(number)))
        (work / str(number)).rmdir()
    assert mine.take("stays", work / "stays") == stays
    assert len((tmp_path / "state" / "users.json").read_text()) < 500


def test_two_data_folders_of_a_node_share_no_user(tmp_path: Path, work: Path) -> None:
    here, there = workspace(work, "here"), workspace(work, "there")
    assert users(tmp_path).take("same-id", here) != users(tmp_path).take("same-id", there)


def _take_many(folder: Path, work: Path, start: int) -> None:
    mine = Users(600_000, 600_099, folder)
    for number in range(start, start + 10):
        mine.take(str(number), work / str(number))


def test_processes_take_side_by_side(tmp_path: Path, work: Path) -> None:
    for number in range(40):
        workspace(work, str(number))
    context = multiprocessing.get_context("spawn")
    takers = [context.Process(target=_take_many, args=(tmp_path / "state", work, start)) for start in (0, 10, 20, 30)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(60)
        assert taker.exitcode == 0
    mine = Users(600_000, 600_099, tmp_path / "state")
    assert len({mine.take(str(number), work / str(number)) for number in range(40)}) == 40


def test_a_file_that_is_held_is_not_waited_for_for_ever(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_module, "LOCK_SECONDS", 0.05)
    users(tmp_path).take("one", workspace(work, "one"))
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "state" / "users.lock", held, done))
    holder.start()
    try:
        assert held.wait(30)
        with pytest.raises(TransientError, match=r"users\.lock was held"):
            users(tmp_path).take("two", workspace(work, "two"))
    finally:
        done.set()
        holder.join(30)


def test_a_file_that_cannot_be_read_stops_everything(tmp_path: Path, work: Path) -> None:
    mine = users(tmp_path)
    mine.take("one", workspace(work, "one"))
    (tmp_path / "state" / "users.json").write_text("{")
    with pytest.raises(ConfigError, match="nobody knows which users are taken"):
        mine.take("two", workspace(work, "two"))


def test_a_range_is_two_numbers() -> None:
    assert parse_range("600000-665535") == (600_000, 665_535)
    for text in ("", "600000", "5-600000", "700000-600000", "a-b", "1000-99999999999"):
        with pytest.raises(ConfigError, match="is no range of users"):
            parse_range(text)


def _hold(file: Path, held: Event, done: Event) -> None:
    with open(file, "a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        held.set()
        done.wait(30)
