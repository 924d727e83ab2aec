"""Lists of files that no scan has made: whoever can write them into a store gains nothing outside of the workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.runs.errors import RetinueError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.snapshots.listing import BadTree, Head, check, decode, decode_head, encode_blocks, encode_head
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import Entry, Tree

TENANT = "acme"
EMPTY = sha256(b"").hexdigest()
pytestmark = pytest.mark.promise("E3")

Keep = Callable[[Tree], str]


def file(path: str, **more: object) -> Entry:
    return replace(Entry(path, "file", 0o644, 0, sha256=EMPTY), **more)  # type: ignore[arg-type]


def folder(path: str) -> Entry:
    return Entry(path, "directory", 0o755, 0)


def link(path: str, target: str) -> Entry:
    return Entry(path, "symlink", 0o777, 0, target=target)


OUTSIDE = {
    "absolute": [file("/etc/planted")],
    "dots": [file("../planted")],
    "dots inside": [folder("a"), file("a/../../planted")],
    "a dot": [file("./planted")],
    "an empty name": [file("")],
    "two slashes": [folder("a"), file("a//planted")],
    "a slash at the end": [file("planted/")],
    "nul": [file("a\0b")],
    "below a symlink": [link("a", "/tmp"), file("a/planted")],
    "below a file": [file("a"), file("a/planted")],
    "without its folder": [file("a/planted")],
    "twice": [file("a"), file("a")],
    "a symlink and a file of one name": [link("a", "/tmp/planted"), file("a")],
    "one name in two texts": [file("caf\udcc3\udca9"), file("caf\u00e9")],
    "out of order": [file("b"), file("a")],
    "no text": [file("\ud800")],
    "long name": [file("x" * 256)],
    "long path": [folder("/".join(["d" * 200] * n)) for n in range(1, 25)],
    "setuid": [file("a", mode=0o4755)],
    "setgid": [file("a", mode=0o2755)],
    "more than a mode": [file("a", mode=0o100644)],
    "negative mode": [file("a", mode=-1)],
    "a mode of text": [file("a", mode="0644")],
    "true for a number": [file("a", mode=True)],
    "negative size": [file("a", size=-1)],
    "huge size without content": [file("a", size=2**62)],
    "a size that is no number": [file("a", size=1e300)],
    "no hash": [file("a", sha256="../../etc/passwd")],
    "a hash in capitals": [file("a", sha256=EMPTY.upper())],
    "time": [file("a", mtime_ns=2**63)],
    "empty target": [link("a", "")],
    "nul in a target": [link("a", "/etc\0")],
    "long target": [link("a", "x" * 5000)],
    "a link that is one file with itself": [file("a", group=2)],
    "links with different content": [file("a", group=1), file("b", group=1, mode=0o600)],
    "attributes of the system": [file("a", attributes=(("security.capability", b"x"),))],
    "trusted attributes": [file("a", attributes=(("trusted.overlay.opaque", b"y"),))],
    "attributes of an overlay": [file("a", attributes=(("user.overlay.redirect", b"/etc"),))],
    "attributes twice": [file("a", attributes=(("user.a", b""), ("user.a", b"x")))],
    "a large attribute": [file("a", attributes=(("user.a", bytes(70_000)),))],
    "an attribute on a symlink": [replace(link("a", "b"), attributes=(("user.a", b""),))],
}


@pytest.mark.parametrize("case", OUTSIDE)
async def test_it_is_refused_and_leaves_nothing(case: str, snapshots: Snapshots, keep: Keep, tmp_path: Path) -> None:
    snapshot_id = keep(Tree(tuple(OUTSIDE[case])))
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(RetinueError) as caught:
        await snapshots.restore(snapshot_id, TENANT, place / "tree")
    assert snapshot_id in str(caught.value)
    assert list(place.iterdir()) == []
    assert [name for _, _, names in os.walk(tmp_path) for name in names if name == "planted"] == []


@pytest.mark.parametrize("kind", ["x", "fifo", "c", None, 7, []])
def test_no_special_file_can_be_listed(kind: object) -> None:
    block = json.dumps([[[kind, "a", 0o644, 0], 0, 0]]).encode()
    with pytest.raises(BadTree):
        decode(Head("s1-" + "0" * 64, 1, 0, (EMPTY,), ()), [block])


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff", b"[1,4194304,1,2,3,4,5]"])
def test_no_head_that_is_none_is_read(text: bytes) -> None:
    with pytest.raises(BadTree):
        decode_head(text)
    with pytest.raises(BadTree):
        decode(Head("s1-" + "0" * 64, 1, 0, (EMPTY,), ()), [text])


def test_a_head_comes_back_as_it_was() -> None:
    head = Head("s1-" + "0" * 64, 3, 10, (EMPTY,), ("a\udcff (fifo)",))
    assert decode_head(encode_head(head)) == head
    with pytest.raises(BadTree, match="format"):
        decode_head(encode_head(head).replace(b"[1,", b"[2,", 1))


async def test_names_that_differ_in_case_alone_are_both_made(snapshots: Snapshots, keep: Keep, tmp_path: Path) -> None:
    """Where a file system takes them for one, the second is not written through the first: it must not exist."""
    snapshot_id = keep(Tree((link("A", "/tmp"), folder("a"), file("a/planted"))))
    await snapshots.restore(snapshot_id, TENANT, tmp_path / "tree")
    assert sorted(os.listdir(tmp_path / "tree")) == ["A", "a"]
    assert "planted" not in os.listdir("/tmp")


async def test_an_absolute_symlink_is_kept_and_never_followed(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("not mine")
    (tree / "python").symlink_to("/usr/bin/python3")
    (tree / "way out").symlink_to(outside)
    taken = await snapshots.take(tree, TENANT)
    assert [entry.path for entry in (await snapshots.tree(taken.snapshot_id, TENANT)).entries] == [
        "README",
        "python",
        "src",
        "src/empty",
        "src/main.py",
        "way out",
    ]
    await snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back")
    assert os.readlink(tmp_path / "back/python") == "/usr/bin/python3"
    assert os.readlink(tmp_path / "back/way out") == str(outside)
    assert [path.name for path in outside.iterdir()] == ["file"]


async def test_sizes_are_checked_before_anything_is_written(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    with (tree / "large").open("wb") as large:
        large.truncate(64 * 1024 * 1024)
    taken = await snapshots.take(tree, TENANT)
    for quota in (Quota(bytes=1 << 20), Quota(file_bytes=1 << 20), Quota(files=2), Quota(depth=1)):
        place = tmp_path / "place"
        place.mkdir()
        with pytest.raises(SandboxRefused, match=r"quota: .*limit") as caught:
            await snapshots.restore(taken.snapshot_id, TENANT, place / "tree", quota=quota)
        assert caught.value.code == "quota"
        assert list(place.iterdir()) == []
        place.rmdir()


def test_blocks_say_what_the_tree_says() -> None:
    entries = tuple(sorted((file(f"f{number}") for number in range(1000)), key=lambda entry: entry.path))
    blocks = list(encode_blocks(Tree(entries)))
    assert 5 < len(blocks) < 100
    assert decode(Head("s1-", 1000, 0, ("",) * len(blocks), ()), blocks).entries == entries
    fewer = list(encode_blocks(Tree(entries[:500] + entries[501:])))
    assert len(set(fewer) - set(blocks)) == 1


VALID = next(encode_blocks(Tree((folder("a"), file("a/b", attributes=(("user.x", b"y"),)), link("c", "a/b")))))


@given(at=st.integers(0, len(VALID) - 1), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_a_changed_list_is_a_list_or_is_refused(at: int, new: bytes, cut: int) -> None:
    """Never another error, and never a tree that its own form would not have."""
    try:
        tree = decode(Head("s1-", 3, 0, ("",), ()), [VALID[:at] + new + VALID[at + cut :]])
    except BadTree:
        return
    check(tree)
    assert decode(Head("s1-", 3, 0, ("",), ()), encode_blocks(tree)) == tree
