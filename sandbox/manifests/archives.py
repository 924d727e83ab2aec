"""Archives unpacked as if their author wished harm: tar, plain or compressed, and zip.

Owns what is refused: paths that are absolute or lead out, links out, special files, more than one file of a name, and
content that grows out of all proportion. Blocking. Knows no manifest.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, BinaryIO, cast

from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.manifests.building import Builder
from retinue.sandbox.manifests.sources import leads_out

MOST_RATIO = 250
"""Bytes that a byte of an archive may become, all in all; text and code come to less than 20."""

SMALL = 16 * 1024 * 1024
"""Bytes that any archive may become, whatever its size."""

_LARGEST_HEADER = 1024 * 1024
_PART = 1024 * 1024
_XZ_MEMORY = 256 * 1024 * 1024
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RecursionError)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def unpack(file: BinaryIO, name: str, builder: Builder, into: str = ".", strip: int = 0) -> None:
    """Make what an archive holds below `into`, without the first `strip` names of each path.

    SandboxRefused `bad_archive` says which member is refused and why; what was made until then is the caller's to
    remove.
    """
    unpacking = _Unpacking(name, builder, into, strip)
    head = file.read(6)
    file.seek(0)
    try:
        if head.startswith(_ZIP):
            unpacking.zip(file)
        else:
            unpacking.tar(file, head)
    except _BROKEN as error:
        raise unpacking.refusal(f"it cannot be read ({type(error).__name__}: {error})") from None
    except (OSError, NotImplementedError) as error:
        raise unpacking.refusal(f"it cannot be read ({error})") from None


class _Unpacking:
    def __init__(self, name: str, builder: Builder, into: str, strip: int) -> None:
        self._name = name
        self._builder = builder
        self._into = into
        self._strip = strip
        self._size = 0
        self._made = 0

    def refusal(self, said: str) -> SandboxRefused:
        return SandboxRefused(f"archive {self._name!r} is refused: {said}", code="bad_archive")

    def tar(self, file: BinaryIO, head: bytes) -> None:
        self._size = os.fstat(file.fileno()).st_size
        with tempfile.TemporaryFile(dir=self._builder.work) as plain:
            source = self._decompressed(file, head, plain)
            with tarfile.open(fileobj=cast(IO[bytes], _Careful(source)), mode="r:", ignore_zeros=False) as tar:
                while (member := tar.next()) is not None:
                    cast(Any, tar).members.clear()  # which would grow with members that make nothing
                    self._builder.check()
                    self._member(tar, member)

    def _decompressed(self, file: BinaryIO, head: bytes, plain: BinaryIO) -> BinaryIO:
        """The tar file itself, in `plain` where it is compressed."""
        decompress = next((reader for mark, reader in _COMPRESSED.items() if head.startswith(mark)), None)
        if decompress is None:
            return file
        for part in self._counted(decompress(file)):
            plain.write(part)
        plain.seek(0)
        self._size = max(self._size, self._made)
        self._made = 0
        return plain

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name)
        if path is None:
            return
        if member.isdir():
            self._builder.directory(path)
        elif member.issym():
            self._link(path, member.linkname)
        elif member.islnk():
            other = self._path(member.linkname)
            if other is None:
                raise self.refusal(f"{member.name[:200]!r} is the same file as one that is not unpacked")
            self._builder.copy(path, other)
        elif member.isreg() and not member.issparse():
            content = tar.extractfile(member)
            assert content is not None
            self._builder.file(path, self._counted(_parts(content)), bool(member.mode & 0o100))
        else:
            raise self.refusal(f"{member.name[:200]!r} is no file, directory or link")

    def zip(self, file: BinaryIO) -> None:
        self._size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                self._builder.check()
                path = self._path(member.filename)
                mode = member.external_attr >> 16
                if path is None:
                    continue
                if member.flag_bits & 0x1:
                    raise self.refusal(f"{member.filename[:200]!r} is encrypted")
                if member.is_dir():
                    self._builder.directory(path)
                elif stat.S_ISLNK(mode):
                    if member.file_size > _LARGEST_HEADER:
                        raise self.refusal(f"{member.filename[:200]!r} is a link with a target that is too long")
                    self._link(path, os.fsdecode(archive.read(member)))
                elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                    with archive.open(member) as content:
                        self._builder.file(path, self._counted(_parts(content)), bool(mode & 0o100))
                else:
                    raise self.refusal(f"{member.filename[:200]!r} is no file, directory or link")

    def _path(self, name: str) -> str | None:
        """Where a member is made in the workspace; None for what is stripped away."""
        names = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in names or "\0" in name:
            raise self.refusal(f"{name[:200]!r} leads out of it")
        kept = names[self._strip :]
        if not kept:
            return None
        return "/".join(kept if self._into == "." else [self._into, *kept])

    def _link(self, path: str, target: str) -> None:
        if leads_out(os.fsencode(path), os.fsencode(target)):
            raise self.refusal(f"{path[:200]!r} is a link to {target[:200]!r}, which leads out of the workspace")
        self._builder.link(path, target)

    def _counted(self, content: Iterable[bytes]) -> Iterator[bytes]:
        """The bytes of a member, as long as they are in proportion to the archive's."""
        most = max(SMALL, MOST_RATIO * self._size)
        for part in content:
            self._made += len(part)
            if self._made > most:
                raise self.refusal(f"its {self._size:,} bytes become more than {most:,}")
            self._builder.quota.check("bytes", self._made, f"archive {self._name!r}")
            yield part


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    while part := file.read(_PART):
        yield part


def _gz(file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as opened:
        while part := opened.read(_PART):
            yield part


def _bz2(file: BinaryIO) -> Iterator[bytes]:
    with bz2.open(file) as opened:
        while part := opened.read(_PART):
            yield part


def _xz(file: BinaryIO) -> Iterator[bytes]:
    decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    while not decoder.eof:
        data = file.read(_PART) if decoder.needs_input else b""
        if decoder.needs_input and not data:
            raise EOFError("it ends in the middle")
        yield decoder.decompress(data, _PART)


_COMPRESSED = {b"\x1f\x8b": _gz, b"BZh": _bz2, b"\xfd7zXZ": _xz}


class _Careful:
    """A tar file whose reader cannot be made to take a header of any size into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
