"""A workspace that changes while it is read, that leads elsewhere, or that looks unchanged, is not misread."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.snapshots.scanning import Scan, remember, scan
from retinue.sandbox.snapshots.stat_cache import StatCache, cache_of
from retinue.sandbox.snapshots.trees import CHUNK, Tree

pytestmark = pytest.mark.promise("E3")


@dataclass
class Reads:
    """A sink that counts what is read, and does something at the first chunk."""

    then: Callable[[], object] = lambda: None
    chunks: list[bytes] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def lacking(self, digests: Collection[str]) -> set[str]:
        return self.lost & set(digests)

    def keep(self, digest: str, chunk: bytes) -> None:
        self.chunks.append(chunk)
        if len(self.chunks) == 1:
            self.then()


def age(folder: Path) -> None:
    """Let all files be older than any doubt about clocks: their ctime cannot be set, so the next scan comes later."""
    newest = max(os.lstat(os.path.join(path, name)).st_ctime_ns for path, _, names in os.walk(folder) for name in names)
    probe = folder.parent / "probe"
    while True:
        probe.write_bytes(b"")
        if probe.stat().st_mtime_ns > newest + 100_000_000:
            break
    probe.unlink()


def scan_with_cache(folder: Path, sink: Reads | None = None) -> tuple[Tree, Reads]:
    sink = sink or Reads()
    cache = StatCache(cache_of(folder))
    try:
        return scan(folder, Scan(cache=cache, sink=sink)), sink
    finally:
        cache.close()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    """Other bytes, and all times that can be set as they were."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "it grows": lambda tree: append(tree / "large"),
    "it is cut": lambda tree: os.truncate(tree / "large", 10),
    "it is written over": lambda tree: rewrite(tree / "large"),
    "its mode changes": lambda tree: (tree / "large").chmod(0o600),
    "its attributes change": lambda tree: os.setxattr(tree / "large", "user.a", b"x"),
    "a name comes": lambda tree: (tree / "src" / "new").touch(),
    "a name goes": lambda tree: (tree / "src" / "empty").unlink(),
    "a folder is renamed": lambda tree: (tree / "src").rename(tree / "lib"),
    "a folder becomes a symlink": lambda tree: [(tree / "src").rename(tree / "lib"), (tree / "src").symlink_to("lib")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_while_it_is_read_is_not_kept(change: str, tree: Path) -> None:
    (tree / "large").write_bytes(os.urandom(2 * CHUNK))
    for name in ("README", "src/main.py"):
        os.truncate(tree / name, 0)
    with pytest.raises(TransientError, match="changed while it was read") as caught:
        scan(tree, Scan(sink=Reads(lambda: CHANGES[change](tree))))
    assert caught.value.code == "changed_while_read"


def test_no_race_makes_a_scan_read_outside(tree: Path, tmp_path: Path) -> None:
    """A folder and a file are replaced by symlinks to a secret and back, as fast as can be, while scans go on."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "main.py").write_bytes(b"not mine")
    (tree.parent / "link").symlink_to(outside)
    (tree.parent / "file").symlink_to(outside / "main.py")
    over = threading.Event()

    def race() -> None:
        while not over.is_set():
            for name, other in (("src", "link"), ("README", "file")):
                for one, two in ((tree / name, tree.parent / "aside"), (tree.parent / other, tree / name)):
                    one.rename(two)
                for one, two in ((tree / name, tree.parent / other), (tree.parent / "aside", tree / name)):
                    one.rename(two)

    racer = threading.Thread(target=race)
    racer.start()
    outcomes = {"whole": 0, "changed": 0}
    try:
        for _ in range(1500):
            sink = Reads()
            try:
                scan(tree, Scan(sink=sink))
                outcomes["whole"] += 1
            except TransientError:
                outcomes["changed"] += 1
            assert b"not mine" not in sink.chunks
    finally:
        over.set()
        racer.join()
    assert outcomes["changed"] > 0


def test_a_fifo_in_place_of_a_file_is_not_waited_for(tree: Path) -> None:
    (tree / "a").write_bytes(b"first")

    def swap() -> None:
        (tree / "src" / "main.py").unlink()
        os.mkfifo(tree / "src" / "main.py")

    os.truncate(tree / "README", 0)
    with pytest.raises(TransientError, match="changed"):
        scan(tree, Scan(sink=Reads(swap)))


def test_an_unchanged_file_is_not_read_again(tree: Path) -> None:
    age(tree)
    first, read = scan_with_cache(tree)
    assert len(read.chunks) == 2
    second, read = scan_with_cache(tree)
    assert (second, read.chunks) == (first, [])


@pytest.mark.parametrize("name", ["README", "src/main.py"])
def test_a_file_with_its_times_set_back_is_read_again(name: str, tree: Path) -> None:
    age(tree)
    first, _ = scan_with_cache(tree)
    rewrite(tree / name)
    second, read = scan_with_cache(tree)
    assert second.snapshot_id != first.snapshot_id
    assert len(read.chunks) == 1
    assert scan(tree) == second


def test_a_file_that_takes_anothers_place_is_read(tree: Path) -> None:
    age(tree)
    scan_with_cache(tree)
    (tree / "copy").write_bytes(bytes((tree / "README").stat().st_size))
    before = (tree / "README").stat()
    os.utime(tree / "copy", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tree / "copy").rename(tree / "README")
    assert scan_with_cache(tree)[0] == scan(tree)


def test_a_change_within_one_tick_of_the_clock_is_seen(tree: Path) -> None:
    """Two states of a file can bear one time when they follow each other closely; neither is believed."""
    path = tree / "README"
    for number in range(300):
        path.write_bytes(b"%03d" % number)
        scan_with_cache(tree)
        path.write_bytes(b"%03d" % (number + 500))
        assert scan_with_cache(tree)[0] == scan(tree)


def test_a_change_of_attributes_alone_is_seen(tree: Path) -> None:
    age(tree)
    first, _ = scan_with_cache(tree)
    os.setxattr(tree / "README", "user.note", b"x")
    second, _ = scan_with_cache(tree)
    assert second.snapshot_id != first.snapshot_id
    assert second.at("README") != first.at("README")


def test_what_the_store_lost_is_read_again(tree: Path) -> None:
    age(tree)
    first, _ = scan_with_cache(tree)
    entry = first.at("src/main.py")
    assert entry is not None
    second, read = scan_with_cache(tree, Reads(lost={entry.sha256}))
    assert second == first
    assert read.chunks == [(tree / "src/main.py").read_bytes()]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text", "version", "folder"])
def test_a_damaged_cache_is_no_cache(damage: str, tree: Path) -> None:
    age(tree)
    first, _ = scan_with_cache(tree)
    cache = cache_of(tree)
    good = cache.read_bytes()
    cache.unlink()
    if damage == "folder":
        cache.mkdir()
        with pytest.raises(OSError, match="directory"):
            scan_with_cache(tree)
        return
    bad = {"cut": good[:-5], "bit": good[:40] + b"x" + good[41:], "empty": b"", "text": b"{}\n{}"}
    cache.write_bytes(bad.get(damage, good.replace(b"\n[2,", b"\n[1,")))
    second, read = scan_with_cache(tree)
    assert (second, len(read.chunks)) == (first, 2)
    assert scan_with_cache(tree)[1].chunks == []


def test_a_scan_that_fails_leaves_the_cache_as_it_was(tree: Path) -> None:
    age(tree)
    scan_with_cache(tree)
    kept = cache_of(tree).read_bytes()
    (tree / "README").write_text("other")
    with pytest.raises(TransientError):
        scan_with_cache(tree, Reads((tree / "new").touch))
    assert cache_of(tree).read_bytes() == kept
    assert sorted(path.name for path in tree.parent.iterdir()) == ["tree", "tree.stats"]


def test_a_folder_just_made_from_a_tree_need_not_be_read(tree: Path) -> None:
    made = scan(tree)
    age(tree)
    remember(tree, made, cache_of(tree))
    assert scan_with_cache(tree)[1].chunks == []


def test_a_link_to_another_users_file_is_left_out(tree: Path, tmp_path: Path) -> None:
    """Who made it may not read the file, and who takes the snapshot may."""
    if os.geteuid() != 0:
        pytest.skip("needs root: files of two users")
    (tmp_path / "shadow").write_text("root:secret")
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 4242, 4242)
    os.link(tmp_path / "shadow", tree / "shadow")
    (tree / "own").hardlink_to(tree / "README")
    found = scan(tree)
    assert found.omitted == ("shadow (link to a file of another user)",)
    assert found.at("shadow") is None
    assert found.at("own") is not None


def test_setuid_is_not_kept(tree: Path) -> None:
    (tree / "README").chmod(0o6755)
    (tree / "src").chmod(stat.S_ISVTX | 0o2777)
    found = scan(tree)
    assert [(entry.path, oct(entry.mode)) for entry in found.entries[:2]] == [("README", "0o755"), ("src", "0o1777")]


def test_attributes_that_mean_something_to_an_overlay_are_not_kept(tree: Path) -> None:
    for path in (tree / "README", tree / "src"):
        os.setxattr(path, "user.overlay.opaque", b"y")
        os.setxattr(path, "user.overlays", b"mine")
    found = scan(tree)
    assert [entry.attributes for entry in found.entries[:2]] == [(("user.overlays", b"mine"),)] * 2


def test_what_may_not_be_read_is_named(tree: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (tree / "README").chmod(0)
    with pytest.raises(SandboxRefused, match="'README' may not be read"):
        scan(tree)
