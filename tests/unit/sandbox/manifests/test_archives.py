"""Archives that wish harm make nothing outside, take no more than they may, and say which member was refused."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from threading import Event

import pytest
from tests.unit.sandbox.manifests.projects import held, tar_of

from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.manifests.archives import MOST_RATIO, SMALL, unpack
from retinue.sandbox.manifests.building import Builder
from retinue.sandbox.profiles import Limits

pytestmark = [pytest.mark.promise("E1")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def unpacked(tree: Path, data: bytes, into: str = ".", strip: int = 0, limits: Limits | None = None) -> dict[str, str]:
    file = tree.with_name("archive")
    file.write_bytes(data)
    with Builder(tree, limits or Limits(), Event(), tree.parent) as builder, file.open("rb") as opened:
        unpack(opened, "archive", builder, into, strip)
    return held(tree)


def refused(code: str = "bad_archive", match: str | None = None) -> pytest.RaisesExc[SandboxRefused]:
    return pytest.RaisesExc(SandboxRefused, match=match, check=lambda error: error.code == code)


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes | str], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def link(name: str, mode: int = stat.S_IFLNK | 0o777) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_tar_file_of_each_kind(tree: Path, compression: str) -> None:
    members = (("p-1/a", b"1"), ("p-1/d", None), ("p-1/d/l", "-> ../a"), ("p-1/same", "= p-1/a"))
    found = unpacked(tree, tar_of(*members, compression=compression), "v", 1)
    assert found == {"v": "", "v/a": "1", "v/d": "", "v/d/l": "-> ../a", "v/same": "1"}
    assert (tree / "v/same").stat().st_nlink == 1


def test_a_zip_file(tree: Path) -> None:
    data = zip_of(("a/run", b"1"), (link("a/run2", stat.S_IFREG | 0o755), b"2"), (link("a/l"), "run"), ("b/", b""))
    assert unpacked(tree, data) == {"a": "", "a/l": "-> run", "a/run": "1", "a/run2": "2", "b": ""}
    assert (tree / "a/run2").stat().st_mode & 0o777 == 0o755


HOSTILE = [
    ("/etc/x", b"1"),
    ("../x", b"1"),
    ("a/../../x", b"1"),
    ("l", "-> /etc/passwd"),
    ("l", "-> ../.."),
    ("d/l", "-> ../../x"),
]


@pytest.mark.parametrize("member", HOSTILE)
def test_what_leads_out_is_refused(tree: Path, member: tuple[str, bytes | str]) -> None:
    with refused():
        unpacked(tree, tar_of(member))
    name, content = member
    as_zip = (name, content) if isinstance(content, bytes) else (link(name), content[3:])
    with refused():
        unpacked(tree, zip_of(as_zip))
    assert sorted(os.listdir(tree.parent)) == ["archive", "tree"]


def test_a_link_of_the_archive_is_no_way_to_write(tree: Path) -> None:
    for members in (
        (("d", "-> ."), ("d/x", b"1")),
        (("a/b", None), ("l", "-> a/b"), ("l/x", b"1")),
        (("a", "-> b"), ("a", b"1")),
        (("a", b"1"), ("a", b"2")),
    ):
        with refused("conflict"):
            unpacked(tree, tar_of(*members))
        for path in sorted(tree.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_a_hard_link_to_what_is_not_in_it_is_refused(tree: Path) -> None:
    for target in ("/etc/passwd", "../x"):
        with refused():
            unpacked(tree, tar_of(("h", f"= {target}")))
    with refused("bad_path"):
        unpacked(tree, tar_of(("h", "= nothing")))
    with refused("conflict"):
        unpacked(tree, tar_of(("l", "-> x"), ("h", "= l")))


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE, b"Z"])
def test_special_files_are_refused(tree: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("special")
    info.type = kind
    with refused(match="special" if kind != tarfile.GNUTYPE_SPARSE else None):
        unpacked(tree, info.tobuf() + b"\0" * 1024)
    with refused():
        unpacked(tree, zip_of((link("fifo", stat.S_IFIFO | 0o644), b"")))


def test_setuid_is_not_taken_over(tree: Path) -> None:
    info = tarfile.TarInfo("tool")
    info.mode = 0o6777
    unpacked(tree, info.tobuf() + b"\0" * 1024)
    assert (tree / "tool").stat().st_mode & 0o7777 == 0o755


def test_a_bomb_is_stopped_by_its_ratio(tree: Path) -> None:
    zeros = b"\0" * (SMALL + 2**20)
    for data in (tar_of(("z", zeros), compression="gz"), tar_of(("z", zeros), compression="xz"), zip_of(("z", zeros))):
        assert len(data) * MOST_RATIO < len(zeros)
        with refused(match="become more than"):
            unpacked(tree, data)
        assert sum(path.stat().st_size for path in tree.rglob("*")) <= SMALL
        for path in tree.iterdir():
            path.unlink()


def test_more_than_the_limits_is_refused(tree: Path) -> None:
    with refused("quota"):
        unpacked(tree, tar_of(*((f"{n}", b"") for n in range(11))), limits=Limits(files=10))
    with refused("quota"):
        unpacked(tree, tar_of(("a", b"1" * 11)), limits=Limits(file_bytes=10))
    with refused("quota"):
        unpacked(tree, tar_of(("b", b"1" * 2_000), compression="gz"), limits=Limits(disk=1_000))
    with refused("quota"):
        unpacked(tree, tar_of(("d/" * 300 + "x", b"1")))


def test_a_header_of_a_gigabyte_is_not_read(tree: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with refused(match="header"):
        unpacked(tree, info.tobuf() + b"\0" * 4096)


def test_a_zip_that_lies_about_its_sizes_or_is_encrypted_is_refused(tree: Path) -> None:
    data = bytearray(zip_of(("z", b"\0" * 100_000)))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    with refused():
        unpacked(tree, bytes(data))
    data = bytearray(zip_of(("z", b"1")))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with refused(match="encrypted"):
        unpacked(tree, bytes(data))


@pytest.mark.parametrize("cut", [10, 200, 700])
def test_what_is_cut_off_or_garbage_is_refused(tree: Path, cut: int) -> None:
    noise = os.urandom(3_000)
    for compression in ("gz", "bz2", "xz"):
        with refused():
            unpacked(tree, tar_of(("a", noise), compression=compression)[:cut])
    with refused():
        unpacked(tree, zip_of(("a", noise))[:-cut])
    with refused():
        unpacked(tree, b"PK\x03\x04" + noise)
    with refused():
        unpacked(tree, b"\x1f\x8b\x08" + zlib.compress(noise))
    with refused():
        unpacked(tree, noise)


def test_members_that_make_nothing_are_not_remembered(tree: Path) -> None:
    member = tarfile.TarInfo("a")
    member.type = tarfile.DIRTYPE
    data = member.tobuf() * 50_000 + bytes(1024)
    tracemalloc.start()
    try:
        assert unpacked(tree, gzip.compress(data, 1)) == {"a": ""}
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
