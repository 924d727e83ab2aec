"""Archives of snapshots: carried to another store they are the same; whatever else a file holds is refused."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.doubles.sealed import FolderCiphers, kept_keys
from tests.doubles.trees import look, names
from zstandard import ZstdCompressor, ZstdDecompressor

from retinue.runs.errors import InvalidInput
from retinue.runs.sandboxes import SandboxLost, SandboxRefused
from retinue.sandbox.snapshots.exporting import export, import_
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import CHUNK

TENANT = "acme"
pytestmark = pytest.mark.promise("E3")
Members = list[tuple[str, bytes]]


@pytest.fixture
def other(tmp_path: Path) -> Snapshots:
    """A store elsewhere, with keys of its own."""
    return Snapshots(LocalObjects(tmp_path / "other"), FolderCiphers(tmp_path / "other-keys"))


@pytest.fixture
def rich(tree: Path) -> Path:
    """A tree with files of several chunks, some of them equal, holes, hardlinks and links."""
    part = os.urandom(CHUNK)
    (tree / "large").write_bytes(part + bytes(CHUNK) + part + b"end")
    (tree / "part").write_bytes(part)
    (tree / "same").write_text("read me\n")
    os.link(tree / "large", tree / "hard")
    os.symlink("large", tree / "soft")
    (tree / "hidden").mkdir(mode=0o700)
    with (tree / "holes").open("wb") as file:
        file.truncate(3 * CHUNK)
    return tree


def members(file: Path) -> Members:
    plain = ZstdDecompressor().decompressobj().decompress(file.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return [(each.name, archive.extractfile(each).read()) for each in archive]  # type: ignore[union-attr]


def write(file: Path, found: Members, kind: bytes = tarfile.REGTYPE, end: bytes = bytes(1024)) -> Path:
    plain = io.BytesIO()
    for name, content in found:
        member = tarfile.TarInfo(name)
        member.size, member.type = len(content), kind
        plain.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    file.write_bytes(ZstdCompressor().compress(plain.getvalue() + end))
    return file


async def test_a_snapshot_goes_to_another_store(
    snapshots: Snapshots, other: Snapshots, rich: Path, tmp_path: Path
) -> None:
    taken = await snapshots.take(rich, TENANT)
    done = await export(snapshots, taken.snapshot_id, TENANT, tmp_path / "one.tar.zst")
    assert (done.snapshot_id, done.entries, done.bytes) == (taken.snapshot_id, taken.entries, taken.bytes)
    assert done.size == (tmp_path / "one.tar.zst").stat().st_size < 2 * CHUNK + CHUNK
    assert (tmp_path / "one.tar.zst").stat().st_mode & 0o777 == 0o600
    came = await import_(other, tmp_path / "one.tar.zst", "another")
    assert came.snapshot_id == taken.snapshot_id
    await other.restore(taken.snapshot_id, "another", tmp_path / "back")
    assert look(tmp_path / "back") == look(rich)
    again = await import_(other, tmp_path / "one.tar.zst", "another")
    assert again.new_bytes == 0
    assert members(tmp_path / "one.tar.zst")[0][0] == "snapshot"


async def test_export_refuses_what_is_there_or_not_there(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    taken = await snapshots.take(tree, TENANT)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInput, match="exists"):
        await export(snapshots, taken.snapshot_id, TENANT, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    for tenant in (TENANT, "nobody"):
        with pytest.raises(SandboxLost):
            await export(snapshots, "s1-" + "0" * 64, tenant, tmp_path / "none")
    assert not [name for name in names(tmp_path) if "none" in name or ".export" in name]


def drop(found: Members) -> Members:
    return found[:-1]


def more(found: Members) -> Members:
    return [*found, found[-1]]


def swap(found: Members) -> Members:
    return [*found[:-2], found[-1], found[-2]]


def change(found: Members) -> Members:
    return [*found[:-1], (found[-1][0], b"x" + found[-1][1][1:])]


def climb(found: Members) -> Members:
    return [("../../etc/passwd", b"root"), *found]


def other_list(found: Members) -> Members:
    """A list with another mode, which has the hash that the head names, and so another id."""
    block = found[1][1].replace(b"420", b"493").replace(b"384", b"448")
    digest = sha256(block).hexdigest()
    head = found[0][1].replace(found[1][0].removeprefix("lists/").encode(), digest.encode())
    return [("snapshot", head), (f"lists/{digest}", block), *found[2:]]


def up(found: Members) -> Members:
    """A list whose paths lead out of the folder."""
    block = found[1][1].replace(b'"README"', b'"../RE"')
    digest = sha256(block).hexdigest()
    head = found[0][1].replace(found[1][0].removeprefix("lists/").encode(), digest.encode())
    return [("snapshot", head), (f"lists/{digest}", block), *found[2:]]


@pytest.mark.parametrize("hostile", [drop, more, swap, change, climb, other_list, up])
async def test_what_is_no_archive_of_the_snapshot_is_refused(
    snapshots: Snapshots, other: Snapshots, tree: Path, tmp_path: Path, hostile: Callable[[Members], Members]
) -> None:
    taken = await snapshots.take(tree, TENANT)
    good = tmp_path / "good"
    await export(snapshots, taken.snapshot_id, TENANT, good)
    found = members(good)
    assert hostile(found) != found
    bad = write(tmp_path / "bad", hostile(found))
    with pytest.raises(InvalidInput, match="no archive of a snapshot"):
        await import_(other, bad, TENANT)
    assert isinstance(other.objects, LocalObjects)
    assert kept_keys(other.objects, TENANT) == []


async def test_files_that_are_something_else_are_refused(
    snapshots: Snapshots, other: Snapshots, tree: Path, tmp_path: Path
) -> None:
    taken = await snapshots.take(tree, TENANT)
    await export(snapshots, taken.snapshot_id, TENANT, tmp_path / "good")
    whole, found = (tmp_path / "good").read_bytes(), members(tmp_path / "good")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "cut").write_bytes(whole[:-20])
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").touch()
    write(tmp_path / "links", found, kind=tarfile.SYMTYPE)
    write(tmp_path / "tail", found, end=bytes(1024) + b"more")
    (tmp_path / "bomb").write_bytes(ZstdCompressor().compress(bytes(1 << 27)))
    write(tmp_path / "long", [("snapshot", b"[" * 100_000)])
    for name in ("fifo", "cut", "text", "empty", "links", "tail", "bomb", "long", "absent", "."):
        with pytest.raises(InvalidInput):
            await import_(other, tmp_path / name, TENANT)
    with pytest.raises(SandboxRefused, match="quota"):
        await import_(other, tmp_path / "good", TENANT, Quota(files=2))
    assert replace(await import_(other, tmp_path / "good", TENANT), new_bytes=taken.new_bytes) == taken
