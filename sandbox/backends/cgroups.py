"""Control groups: memory and processes of an exec as a whole, held by the kernel.

Owns groups below this process's own, of version 2 where it was delegated and of version 1 where its folders can be
written. Knows no exec: it lends a group with limits and says what was hit in it since. A lent group is empty again
when it is given back, and is lent again for the same limits, since making one costs more than a start.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retinue.sandbox.profiles import Limits

REMEDY = (
    "run the host as root, or in a systemd unit with Delegate=memory pids and DelegateSubgroup=host; in a container, "
    "with a writable cgroup"
)

_NAME = "retinue-"
_KEPT = 8
"""Empty groups that are kept for each pair of limits."""


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of one version's files; `swap` bounds memory and swap together, or swap alone (version 2: to nothing)."""

    memory: str
    swap: str
    swap_is_sum: bool
    killed: str


_VERSIONS = {
    1: _Files("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", True, "memory.oom_control"),
    2: _Files("memory.max", "memory.swap.max", False, "memory.events"),
}


@dataclass(frozen=True, slots=True)
class _Tree:
    """A hierarchy in which groups can be made, with what it controls (`memory`, `pids`)."""

    version: int
    top: Path
    controls: frozenset[str]


class Group:
    """Folders that are one group. `members` are the files by which a process joins."""

    def __init__(self, folders: dict[Path, _Tree], limits: Limits) -> None:
        self._folders = folders
        self._limits = limits
        self._before = self._counts()
        self.members = tuple(str(folder / "cgroup.procs") for folder in folders)

    def hit(self) -> tuple[str, ...]:
        """Limits that were hit since it was lent: `memory` when the kernel killed, `processes` when it refused one."""
        now = self._counts()
        return tuple(name for name, count in now.items() if count > self._before.get(name, 0))

    def lend(self) -> Group:
        """The same, as of now."""
        return Group(self._folders, self._limits)

    def is_there(self) -> bool:
        """Whether nobody has removed its folders."""
        return all(os.path.exists(member) for member in self.members)

    def is_empty(self) -> bool:
        """Whether it is there and nobody is in it."""
        return self.is_there() and not any(_read(folder / "cgroup.procs") for folder in self._folders)

    def remove(self) -> None:
        """Its folders; one that is busy stays, and is removed by a later process."""
        for folder in self._folders:
            _remove(folder)

    def _counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, tree in self._folders.items():
            if "memory" in tree.controls:
                found["memory"] = _counted(folder / _VERSIONS[tree.version].killed, "oom_kill")
            if "pids" in tree.controls:
                found["processes"] = _counted(folder / "pids.events", "max")
        return found


class Cgroups:
    """Lends groups. Nothing is made before it is first asked; `controls` is what it can hold here."""

    def __init__(self, trees: list[_Tree]) -> None:
        self._trees = trees
        self._free: dict[tuple[int | None, int | None], list[Group]] = defaultdict(list)
        self._made = 0
        self._own = f"{_NAME}{os.getpid()}-{os.urandom(4).hex()}"
        self.controls = frozenset(control for tree in trees for control in tree.controls)

    def take(self, limits: Limits) -> Group | None:
        """A group with these limits, None where nothing of them can be held. OSError when the kernel refuses one."""
        if not self.controls or limits.memory is limits.processes is None:
            return None
        free = self._free[limits.memory, limits.processes]
        while free:
            group = free.pop()
            if group.is_there():
                return group.lend()
        return self._make(limits)

    def give_back(self, group: Group, limits: Limits) -> bool:
        """It is kept for the next one, which is told by True, or removed."""
        free = self._free[limits.memory, limits.processes]
        kept = len(free) < _KEPT and group.is_empty()
        if kept:
            free.append(group)
        else:
            group.remove()
        return kept

    def close(self) -> None:
        """Remove all that are not lent."""
        for free in self._free.values():
            for group in free:
                group.remove()
        self._free.clear()

    def _make(self, limits: Limits) -> Group:
        self._made += 1
        folders: dict[Path, _Tree] = {}
        try:
            for tree in self._trees:
                folder = tree.top / f"{self._own}-{self._made}"
                folder.mkdir()
                folders[folder] = tree
                _limit(folder, tree, limits)
        except BaseException:
            for folder in folders:
                _remove(folder)
            raise
        return Group(folders, limits)


def find() -> Cgroups:
    """What this process may make groups in; groups that dead processes left are removed. Never raises."""
    trees = list(_trees())
    for tree in trees:
        for folder in tree.top.glob(f"{_NAME}*"):
            pid = folder.name.removeprefix(_NAME).partition("-")[0]
            if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                _remove(folder)
    return Cgroups(trees)


def _trees() -> Iterator[_Tree]:
    """A version 2 hierarchy with both controllers, else those of version 1."""
    mounts = [line.split() for line in _read(Path("/proc/self/mounts")).splitlines()]
    lines = [line.split(":", 2) for line in _read(Path("/proc/self/cgroup")).splitlines()]
    own = {name: path for _, names, path in lines for name in names.split(",")}
    for _, at, kind, *_ in mounts:
        if kind == "cgroup2" and (top := _delegated(Path(at), own.get("", "/"))):
            yield _Tree(2, top, frozenset({"memory", "pids"}))
            return
    for _, at, kind, options, *_ in mounts:
        for control in {"memory", "pids"} & set(options.split(",")):
            top = Path(at) / own.get(control, "/").lstrip("/")
            if kind == "cgroup" and (usable := next((one for one in (top, Path(at)) if _can_make(one)), None)):
                yield _Tree(1, usable, frozenset({control}))


def _delegated(at: Path, own: str) -> Path | None:
    """The own group or the one above it, if groups made there get both controllers."""
    mine = at / own.lstrip("/")
    for top in (mine, mine.parent):
        if top.is_relative_to(at) and _can_make(top):
            switch = top / "cgroup.subtree_control"
            if not {"memory", "pids"} <= set(_read(switch).split()):
                _write(switch, "+memory +pids")
            if {"memory", "pids"} <= set(_read(switch).split()):
                return top
    return None


def _can_make(top: Path) -> bool:
    """Shown by making one: a read-only mount tells nothing beforehand."""
    probe = top / f"{_NAME}{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _limit(folder: Path, tree: _Tree, limits: Limits) -> None:
    files = _VERSIONS[tree.version]
    if "memory" in tree.controls and limits.memory is not None:
        (folder / files.memory).write_text(str(limits.memory))
        if (folder / files.swap).exists():
            (folder / files.swap).write_text(str(limits.memory if files.swap_is_sum else 0))
        _write(folder / "memory.oom.group", "1")
    if "pids" in tree.controls and limits.processes is not None:
        (folder / "pids.max").write_text(str(limits.processes))


def _counted(file: Path, name: str) -> int:
    """The number behind a name in a file of lines `name number`; 0 where it is not there."""
    for line in _read(file).splitlines():
        words = line.split()
        if words[0] == name:
            return int(words[1])
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _write(file: Path, text: str) -> None:
    """Where the kernel takes it: not every one has the file, and what it refuses shows when it is read."""
    if not file.exists():
        return
    try:
        file.write_text(text)
    except OSError:
        return


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
