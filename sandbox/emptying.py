"""What stands in the folder of a workspace besides its notes, and how it goes: mounts, subvolumes, files.

Owns the names. Knows neither what a workspace holds nor who has it.

    tree        the workspace: a folder, a subvolume, or where an overlay is mounted
    tree.stats  what the last scan of it remembers
    overlay     what an overlay keeps of changes
    lower       where its base is mounted for a moment
"""

from __future__ import annotations

import os
from pathlib import Path

from retinue.sandbox.folders import remove_tree
from retinue.sandbox.mounts import CHANGES, LOWER, is_mounted, mount_again, unmount_below
from retinue.sandbox.snapshots.cloning import destroy_subvolume, is_subvolume
from retinue.sandbox.snapshots.stat_cache import cache_of

TREE = "tree"
OVERLAYFS = "overlayfs"


def rest_place(folder: Path) -> None:
    """Nobody uses the workspace for now: nothing stays mounted, and nothing of it is lost."""
    unmount_below(folder)


def wake_place(folder: Path, tier: str, uid: int | None) -> bool:
    """Whether the workspace that was made by this tier is there to be used: an overlay is mounted again."""
    if tier != OVERLAYFS or is_mounted(folder / TREE):
        return True
    try:
        mount_again(folder, folder / TREE, os.geteuid() if uid is None else uid)
    except OSError:
        return False
    return True


def empty_place(folder: Path) -> None:
    """Remove the workspace from a folder; the notes stay."""
    unmount_below(folder)
    tree = folder / TREE
    if is_subvolume(tree):
        destroy_subvolume(tree)
    for each in (tree, folder / CHANGES, folder / LOWER):
        remove_tree(each)
    cache_of(tree).unlink(missing_ok=True)


def remove_place(folder: Path) -> None:
    """Remove a folder with all that stands in it."""
    if folder.exists():
        empty_place(folder)
        remove_tree(folder)
