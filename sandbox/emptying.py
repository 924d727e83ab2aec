"""What stands in the folder of a workspace besides its notes, and how it goes: mounts, subvolumes, files.

Owns the names. Knows neither what a workspace holds nor who has it.

    tree        the workspace: a folder, a subvolume, or where an overlay is mounted
    tree.stats  what the last scan of it remembers
    overlay     what an overlay keeps of changes
    lower       where its base is mounted for a moment
"""

from __future__ import annotations

from pathlib import Path

from retinue.sandbox.cloning import destroy_subvolume, is_subvolume
from retinue.sandbox.folders import remove_tree
from retinue.sandbox.mounts import CHANGES, LOWER, is_mounted, unmount_below
from retinue.sandbox.stat_cache import cache_of

TREE = "tree"
OVERLAYFS = "overlayfs"


def is_whole(folder: Path, tier: str) -> bool:
    """Whether the workspace that was made by this tier is there: a mount may be gone with the namespace it was in."""
    return tier != OVERLAYFS or is_mounted(folder / TREE)


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
