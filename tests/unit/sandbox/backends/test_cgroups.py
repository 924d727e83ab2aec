"""Control groups: where they can be made, what is written into them, and what is read from them. Folders stand for the
kernel's here, of both versions; test_limits.py has real ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.sandbox.backends import cgroups
from retinue.sandbox.backends.cgroups import Cgroups, find
from retinue.sandbox.profiles import MIB, Limits

pytestmark = pytest.mark.promise("E4")

LIMITS = Limits(memory=64 * MIB, processes=20)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `mounts` and `cgroup` are what the kernel says of this process."""
    known = {Path("/proc/self/mounts"): tmp_path / "mounts", Path("/proc/self/cgroup"): tmp_path / "cgroup"}
    read = cgroups._read
    monkeypatch.setattr(cgroups, "_read", lambda file: read(known.get(file, file)))
    return tmp_path


def version_2(machine: Path, own: str, switches: dict[str, str]) -> Path:
    """A hierarchy of version 2 with these groups, and what each gives to those below it."""
    top = machine / "unified"
    for name, given in switches.items():
        (top / name).mkdir(parents=True, exist_ok=True)
        (top / name / "cgroup.subtree_control").write_text(given)
    (machine / "mounts").write_text(f"cgroup2 {top} cgroup2 rw 0 0\n")
    (machine / "cgroup").write_text(f"0::{own}\n")
    return top


def taken(groups: Cgroups) -> list[Path]:
    """The folders of a group that is taken."""
    group = groups.take(LIMITS)
    return [] if group is None else [Path(member).parent for member in group.members]


def test_a_delegated_unit_has_groups_beside_its_own(machine: Path) -> None:
    top = version_2(machine, "/unit/host", {"": "cpu", "unit": "cpu memory pids", "unit/host": ""})
    groups = find()
    assert groups.controls == {"memory", "pids"}
    (folder,) = taken(groups)
    assert folder.parent == top / "unit"
    assert (folder / "memory.max").read_text() == str(64 * MIB)
    assert (folder / "pids.max").read_text() == "20"


def test_an_undelegated_process_has_none(machine: Path) -> None:
    top = version_2(machine, "/user/session", {"": "", "user": "cpu", "user/session": ""})
    for name in ("user", "user/session"):
        (top / name / "cgroup.subtree_control").unlink()
    groups = find()
    assert (groups.controls, groups.take(LIMITS)) == (frozenset(), None)


def test_groups_of_version_1_are_one_for_each_controller(machine: Path) -> None:
    (machine / "memory" / "own").mkdir(parents=True)
    (machine / "pids").mkdir()
    (machine / "mounts").write_text(
        f"cgroup {machine}/memory cgroup rw,memory 0 0\n"
        f"cgroup {machine}/pids cgroup rw,relatime,pids 0 0\n"
        f"cgroup {machine}/cpu cgroup rw,cpu 0 0\n"
    )
    (machine / "cgroup").write_text("4:memory:/own\n3:pids:/not/here\n2:cpu:/\n")
    groups = find()
    assert groups.controls == {"memory", "pids"}
    memory, pids = sorted(taken(groups))
    assert (memory.parent, pids.parent) == (machine / "memory" / "own", machine / "pids")
    assert (memory / "memory.limit_in_bytes").read_text() == str(64 * MIB)
    assert (pids / "pids.max").read_text() == "20"


def test_what_was_hit_is_what_the_kernel_counted_since(machine: Path) -> None:
    version_2(machine, "/", {"": "memory pids"})
    group = find().take(LIMITS)
    assert group is not None
    folder = Path(group.members[0]).parent
    assert group.hit() == ()
    (folder / "memory.events").write_text("low 0\nmax 7\noom 2\noom_kill 1\n")
    assert group.hit() == ("memory",)
    (folder / "pids.events").write_text("max 3\n")
    assert group.hit() == ("memory", "processes")
    assert group.lend().hit() == ()


def test_a_group_is_lent_again_for_the_same_limits_only(machine: Path) -> None:
    version_2(machine, "/", {"": "memory pids"})
    groups = find()
    first = groups.take(LIMITS)
    assert first is not None
    assert not groups.give_back(first, LIMITS), "its folder has no list of members, as one that somebody removed"
    Path(first.members[0]).write_text("")
    assert groups.give_back(first, LIMITS)
    assert taken(groups) == [Path(first.members[0]).parent]
    Path(first.members[0]).write_text("4711\n")
    assert not groups.give_back(first, LIMITS), "somebody is in it"
    other = groups.take(Limits(memory=32 * MIB))
    assert other is not None
    assert other.members != first.members


def test_groups_of_processes_that_are_gone_are_removed(machine: Path) -> None:
    top = version_2(machine, "/", {"": "memory pids"})
    (top / "retinue-999999999-abcd-1").mkdir()
    (top / "retinue-1-abcd-1").mkdir()
    (top / "another").mkdir()
    find()
    assert sorted(path.name for path in top.iterdir() if path.is_dir()) == ["another", "retinue-1-abcd-1"]


def test_limits_that_no_group_holds_need_none(machine: Path) -> None:
    version_2(machine, "/", {"": "memory pids"})
    assert find().take(Limits(memory=None, processes=None)) is None


def test_of_a_group_that_is_refused_nothing_stays(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = version_2(machine, "/unit/host", {"": "cpu", "unit": "cpu memory pids", "unit/host": ""})
    groups = find()

    def refused(*arguments: object) -> None:
        raise OSError("the kernel refuses this limit")

    monkeypatch.setattr(cgroups, "_limit", refused)
    with pytest.raises(OSError, match="refuses"):
        groups.take(LIMITS)
    assert not list(top.rglob("retinue-*"))
