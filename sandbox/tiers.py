"""Ways to make a workspace from a snapshot: the fastest that this node showed it can do, else the plain copy.

Owns which way is taken. All but the first start from a base of the snapshot (a plain folder, made once); the store of
snapshots stays the truth, and where a way fails the copy is made from there.

    copy       the objects are unpacked; or, where the snapshot is wanted again, a base is copied by the kernel
    reflink    a base is copied file by file, its content shared (xfs, btrfs)
    btrfs      a base is a subvolume, the workspace a snapshot of it
    overlayfs  a base lies under an overlay; for a host that is root and gives each sandbox a user
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock

from retinue.sandbox.bases import Base, Bases, make_closed, measured
from retinue.sandbox.boxes import Holdings
from retinue.sandbox.emptying import OVERLAYFS, TREE, empty_place, remove_place
from retinue.sandbox.folders import Trail, make_private, remove_tree
from retinue.sandbox.living import Workplace
from retinue.sandbox.mounts import mount_overlay
from retinue.sandbox.scratch import sweep, taken
from retinue.sandbox.snapshots.cloning import clone, make_subvolume, snapshot_subvolume
from retinue.sandbox.snapshots.restoring import Restore, restore
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.scanning import remember, scan
from retinue.sandbox.snapshots.shelves import Shelf, missing
from retinue.sandbox.snapshots.stat_cache import cache_of, copy_cache
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import Entry, Tree, check_id

COPY, REFLINK, BTRFS = "copy", "reflink", "btrfs"
ORDER = (OVERLAYFS, BTRFS, REFLINK, COPY)
"""The fastest first."""
_TREES = 4
"""Lists of files that are kept in memory."""
_TRIAL = ".trial-"
_WANTED = 1_000
"""Snapshots of which it is known that they were wanted before."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a workspace is made: the folder of its notes, and its user (None: our own)."""

    folder: Path
    uid: int | None

    @property
    def tree(self) -> Path:
        """The workspace."""
        return self.folder / TREE


@dataclass(frozen=True, slots=True)
class Job:
    """A snapshot that is wanted in a workspace, and what ends that early. `tree` gives its list of files."""

    spot: Spot
    quota: Quota
    tree: Callable[[], Tree]
    stop: Event


class Tiers:
    """The ways of one node. `among` are those that may be taken, each if it works. Safe for threads and processes."""

    def __init__(self, snapshots: Snapshots, bases: Bases, among: tuple[str, ...] = ORDER) -> None:
        self.snapshots = snapshots
        self._bases = bases
        self._among = among
        self._found: dict[bool, tuple[str, ...]] = {}
        self._trees: OrderedDict[tuple[str, str], Tree] = OrderedDict()
        self._wanted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock, self._probing, self._copying = Lock(), Lock(), Lock()

    async def fill(self, place: Workplace, tenant: str, snapshot_id: str, quota: Quota) -> Holdings:
        """Make the folder `tree` of a place, which must not exist. Raises as `Snapshots.restore` does."""
        check_id(snapshot_id)
        spot = Spot(place.folder, place.uid)
        return await self.snapshots.apart(lambda stop: self._fill(spot, (tenant, snapshot_id), quota, stop))

    def working(self, uid: int | None) -> tuple[str, ...]:
        """The ways that work here for a workspace of a user, the fastest first: tried once. Blocking."""
        with self._probing:
            if (uid is not None) not in self._found:
                self._found[uid is not None] = tuple(self._try_all(uid))
            return self._found[uid is not None]

    def _fill(self, spot: Spot, key: tuple[str, str], quota: Quota, stop: Event) -> Holdings:
        tenant, snapshot_id = key
        shelf = self.snapshots.shelf(tenant)
        if shelf is None or not shelf.refresh(snapshot_id):
            self._forget(key)
            raise missing(snapshot_id, erased=shelf is None)
        job = Job(spot, quota, lambda: self._tree(shelf, key), stop)
        for tier in self._tiers_for(key, spot.uid):
            try:
                return self._from_base(tier, job, key, shelf)
            except _Unfit:
                continue
            except OSError:
                self._bases.drop(*key)
                empty_place(spot.folder)
        tree = job.tree()
        _unpack(shelf, tree, spot.tree, Restore(_none, cache_of(spot.tree), spot.uid, quota, stop))
        return Holdings(snapshot_id, len(tree.entries), tree.bytes, tree.omitted, COPY)

    def _tiers_for(self, key: tuple[str, str], uid: int | None) -> tuple[str, ...]:
        """A base for plain copies is made of what is wanted more than once: it costs as much as a copy."""
        with self._lock:
            again = key in self._wanted
            self._wanted[key] = None
            self._wanted.move_to_end(key)
            if len(self._wanted) > _WANTED:
                self._wanted.popitem(last=False)
        return tuple(tier for tier in self.working(uid) if tier != COPY or again)

    def _from_base(self, tier: str, job: Job, key: tuple[str, str], shelf: Shelf) -> Holdings:
        folder_maker = make_subvolume if BTRFS in self.working(job.spot.uid) else make_private

        def make(into: Path) -> Tree:
            tree = job.tree()
            measured(tree, "").check(job.quota)
            if tree.bytes > self._bases.most:
                raise _Unfit
            how = Restore(_none, cache_of(into), None, Quota(depth=None), job.stop, None, folder_maker)
            _unpack(shelf, tree, into, how)
            return tree

        with self._bases.held(*key, make, job.stop) as base:
            base.measure.check(job.quota)
            with self._copying if tier == COPY else nullcontext():  # several at once are slower on most disks
                _WAYS[tier](base, job)
            measure = base.measure
        return Holdings(key[1], measure.entries, measure.bytes, measure.omitted, tier)

    def _tree(self, shelf: Shelf, key: tuple[str, str]) -> Tree:
        with self._lock:
            if key in self._trees:
                self._trees.move_to_end(key)
                return self._trees[key]
        tree = shelf.tree(key[1])
        with self._lock:
            self._trees[key] = tree
            if len(self._trees) > _TREES:
                self._trees.popitem(last=False)
        return tree

    def _forget(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._trees.pop(key, None)
        self._bases.drop(*key)

    def _try_all(self, uid: int | None) -> Iterator[str]:
        for tier in self._among:
            if tier == COPY or _works(tier, self._bases.folder, uid):
                yield tier


class _Unfit(Exception):
    """This way cannot hold what the snapshot has."""


def _none(entry: Entry) -> Iterator[bytes]:
    raise FileNotFoundError(entry.path)


def _unpack(shelf: Shelf, tree: Tree, into: Path, how: Restore) -> None:
    restore(tree, into, replace(how, source=partial(shelf.content, tree.snapshot_id)))


def _copied(base: Base, job: Job) -> None:
    spot = job.spot
    how = Restore(_none, cache_of(spot.tree), spot.uid, job.quota, job.stop, base.tree)
    restore(job.tree(), spot.tree, how)


def _snapshotted(base: Base, job: Job) -> None:
    spot = job.spot
    snapshot_subvolume(base.tree, spot.tree)
    if spot.uid is None:
        copy_cache(cache_of(base.tree), cache_of(spot.tree), spot.tree.stat().st_dev)
        return
    tree = job.tree()
    with Trail(spot.tree) as trail:
        for entry in tree.entries:
            folder, name = trail.beside(entry.path)
            os.chown(name, spot.uid, spot.uid, dir_fd=folder, follow_symlinks=False)
        os.fchown(trail.at(""), spot.uid, spot.uid)
    remember(spot.tree, tree, cache_of(spot.tree))


def _overlaid(base: Base, job: Job) -> None:
    spot = job.spot
    if base.measure.linked or spot.uid is None:
        raise _Unfit  # a change of one name of a file would not be seen under its others
    base.stands_below(spot.folder)
    mount_overlay(base.tree, spot.folder, spot.tree, spot.uid)
    copy_cache(cache_of(base.tree), cache_of(spot.tree), spot.tree.stat().st_dev)


_WAYS: dict[str, Callable[[Base, Job], None]] = {
    COPY: _copied,
    REFLINK: _copied,
    BTRFS: _snapshotted,
    OVERLAYFS: _overlaid,
}


def _works(tier: str, cache: Path, uid: int | None) -> bool:
    """A real attempt with a small base, in the folder where bases are."""
    make_closed(cache)
    with taken(cache, _TRIAL, _remove_trial) as trial:
        for each in (trial / "base", trial / "base" / "users"):
            make_private(each)
        spot = Spot(trial / "place", uid)
        spot.folder.mkdir(mode=0o711)
        try:
            return _holds(tier, trial / "base", spot)
        except (OSError, _Unfit):
            return False


def sweep_trials(cache: Path) -> int:
    """Remove the attempts that killed processes have left where bases are, with all that is mounted in them."""
    return sweep(cache, _TRIAL, lambda uid: uid == os.geteuid(), _remove_trial)


def _remove_trial(trial: Path) -> None:
    remove_place(trial / "place")
    remove_place(trial / "base")
    remove_tree(trial)


def _holds(tier: str, folder: Path, spot: Spot) -> bool:
    """Whether the workspace shows what the base has, for its user, and a change of it leaves the base as it is."""
    base = folder / TREE
    (make_subvolume if tier == BTRFS else make_private)(base)
    (base / "below").mkdir()
    for name in ("changed", "below/removed"):
        (base / name).write_bytes(b"as it was" * 1000)
    if tier == REFLINK and not _clones(base):
        return False
    tree = scan(base)
    before = tree.snapshot_id
    _WAYS[tier](Base(folder, measured(tree, "")), Job(spot, Quota(), lambda: tree, Event()))
    if scan(spot.tree).snapshot_id != before:
        return False
    owner = os.geteuid() if spot.uid is None else spot.uid
    (spot.tree / "changed").write_bytes(b"changed")
    (spot.tree / "below" / "removed").unlink()
    (spot.tree / "below").rename(spot.tree / "renamed")
    names = [entry.path for entry in scan(spot.tree).entries]
    owners = {path.lstat().st_uid for path in (spot.tree, *spot.tree.iterdir())}
    return names == ["changed", "renamed"] and owners == {owner} and scan(base).snapshot_id == before


def _clones(folder: Path) -> bool:
    with (folder / "changed").open("rb") as source, (folder.parent / "clone").open("wb") as target:
        return clone(source.fileno(), target.fileno())
