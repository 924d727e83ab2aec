"""What is kept of a workspace comes back as it was, and has one id wherever it stands."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doubles.sealed import FolderCiphers
from tests.doubles.trees import Made, allocated, look, make

from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.scanning import scan
from retinue.sandbox.snapshots.store import Snapshots

TENANT = "acme"
pytestmark = pytest.mark.promise("E2", "E3")

READABLE = 0o700 if os.geteuid() else 0
"""Root reads what its owner may not; nobody else can keep it."""
NAME = st.one_of(
    st.sampled_from(
        [b"a", b"a-b", b"a b", b"new\nline", b"\xff\xfe", b"-rf", b"caf\xc3\xa9", b"x" * 255, b"*", b"'\""]
    ),
    st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b"..")),
)
TIME = st.integers(-(2**31) * 10**9, 2**33 * 10**9)
ATTRIBUTES = st.dictionaries(st.sampled_from(["user.a", "user.b c", "user.é"]), st.binary(max_size=20), max_size=2)
PART = st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=200))


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Made]:
    """Random trees: odd names, modes, times, holes, hardlinks, attributes, empty folders and files, FIFOs."""
    folders, names, files = [b""], {}, []
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(folders))
        path = (parent + b"/" if parent else b"") + draw(NAME)
        if path in names:
            continue
        kind = draw(st.sampled_from(["file", "file", "sparse", "directory", "symlink", "link", "fifo"]))
        mode, time = draw(st.integers(0, 0o1777)) | READABLE, draw(TIME)
        if kind == "directory":
            folders.append(path)
            names[path] = Made(kind, mode, time, attributes=draw(ATTRIBUTES))
        elif kind == "symlink":
            target = draw(st.sampled_from([b"/etc/passwd", b"..", b"nowhere", b"\xff", b"a"]))
            names[path] = Made(kind, mtime_ns=time, target=target)
        elif kind == "link" and files and min(files) < path:
            names[path] = Made(kind, target=min(files))
        elif kind == "fifo":
            names[path] = Made(kind)
        elif kind in ("file", "sparse"):
            data = draw(st.one_of(st.binary(max_size=300), st.just(b""), st.just(os.urandom(5_000))))
            parts = tuple(draw(st.lists(PART, max_size=3))) if kind == "sparse" else ((0, data),) if data else ()
            end = max((offset + len(part) for offset, part in parts), default=0)
            size = end + draw(st.sampled_from([0, 1, 100_000])) if kind == "sparse" else end
            names[path] = Made("file", mode, time, parts, size, attributes=draw(ATTRIBUTES))
            files.append(path)
    return names


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(names=trees())
def test_a_tree_comes_back_as_it_was_and_keeps_its_id(names: dict[bytes, Made]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_there_and_back(Path(folder), names))


async def _there_and_back(top: Path, names: dict[bytes, Made]) -> None:
    snapshots = Snapshots(LocalObjects(top / "store"), FolderCiphers(top / "keys"))
    for place in ("one", "two"):
        (top / place / "tree").mkdir(parents=True)
        make(top / place / "tree", names)
    fifos = {path for path, made in names.items() if made.kind == "fifo"}
    first = await snapshots.take(top / "one/tree", TENANT)
    again = await snapshots.take(top / "two/tree", TENANT)
    assert (again.snapshot_id, again.new_bytes) == (first.snapshot_id, 0)
    assert first.entries == len(names) - len(fifos)
    assert first.omitted == tuple(sorted(f"{os.fsdecode(path)} (fifo)" for path in fifos))

    back = top / "back"
    restored = await snapshots.restore(first.snapshot_id, TENANT, back)
    assert look(back) == look(top / "one/tree")
    assert allocated(back) <= allocated(top / "one/tree")
    assert (restored.entries, restored.bytes) == (first.entries, first.bytes)
    assert (await snapshots.take(back, TENANT)).snapshot_id == first.snapshot_id
    tree = await snapshots.tree(first.snapshot_id, TENANT)
    assert scan(top / "two/tree").entries == tree.entries
