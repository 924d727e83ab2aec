"""What a snapshot leaves out is told in words that a record can hold."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from retinue.sandbox.bases import Bases
from retinue.sandbox.contents import SnapshotContents
from retinue.sandbox.snapshots.rules import Rules
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.tiers import Tiers


async def test_a_name_that_is_no_text_is_told_in_a_record(snapshots: Snapshots, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(os.fsencode(tree) + b"/pipe\xff")
    place: Any = SimpleNamespace(tree=tree, uid=None)
    tiers = Tiers(snapshots, Bases(tmp_path / "cache", "boot", 1_000_000))
    kept = await SnapshotContents(snapshots, "acme", Rules(), tiers).take(place)
    assert kept.omitted == ("pipe\\xff (fifo)",)
    assert [name.encode() for name in kept.omitted]
