"""Backups of a project: its store, and the snapshots of its workspaces that stand on this machine.

Owns how the two fit together: nothing is removed from the snapshots from before the journal is copied until they are,
so that every snapshot which the copied journal names, and which was there, is in the copy. Snapshots in a place that
machines share stay there. Knows no command line.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retinue.host.moving import back_up_shared, restore_shared
from retinue.host.sandboxes import local_snapshots
from retinue.host.settings import Settings
from retinue.sandbox.snapshots.copying import Copied, bring_back, copy_out, guarded, refuse_snapshots
from retinue.store.backup import back_up, facts_of, refuse_no_store, refuse_store, restore

_COPIED, _PLACE = "sandboxes", "snapshots_in"
"""Of the facts of a backup: what was copied of snapshots, or the place that has them."""


@dataclass(frozen=True, slots=True)
class Restored:
    """`runs` are held. `copied` is what was brought back of snapshots, None when the backup has none; `place` is where
    they were when it was made, if that was a place."""

    runs: int
    copied: Copied | None
    place: str | None


def back_up_project(
    settings: Settings, target: Path, *, keys: bool = True, snapshots: bool = True, earlier: Path | None = None
) -> tuple[dict[str, Any], Copied | None]:
    """Copy a project's data into `target`, which must not exist; counts of runs, frames and blobs, and what was copied
    of snapshots (None: nothing was to be). Safe while hosts write. What the `earlier` backup has of snapshots, on the
    same file system, is linked. InvalidInput, StoreError, TransientError.
    """
    if earlier is not None:
        facts_of(earlier)
    if settings.store is None:
        refuse_no_store(settings.data_folder)
    folder, place = local_snapshots(settings), settings.sandbox.snapshots

    def beside(draft: Path) -> dict[str, Any]:
        if place is not None:
            return {_PLACE: place}
        return {_COPIED: asdict(copy_out(folder, draft, earlier))} if snapshots else {}

    with guarded(folder) if snapshots and place is None else nullcontext():
        if settings.store is not None:
            facts = back_up_shared(settings, target, keys=keys, beside=beside)
        else:
            facts = back_up(settings.data_folder, target, keys=keys, beside=beside)
    copied = Copied(**facts[_COPIED]) if _COPIED in facts else None
    return {name: facts[name] for name in ("runs", "frames", "blobs")}, copied


def restore_project(settings: Settings, backup: Path, *, snapshots: bool = True) -> Restored:
    """Make a project's data of a backup, snapshots into its data folder: every file of them is checked. Broken off, it
    is done again. InvalidInput when there is something already, StoreError for a backup that is damaged.
    """
    facts, folder = facts_of(backup), local_snapshots(settings)
    if settings.store is None:
        refuse_store(settings.data_folder)
    has_snapshots = snapshots and _COPIED in facts
    if has_snapshots:
        refuse_snapshots(folder)
    copied: Copied | None = None

    def bring() -> None:
        nonlocal copied
        copied = bring_back(backup, folder, facts[_COPIED]["files"]) if has_snapshots else None

    if settings.store is None:
        runs = restore(backup, settings.data_folder, bring)
    else:
        runs = restore_shared(settings, backup)
        bring()
    return Restored(runs, copied, facts.get(_PLACE))
