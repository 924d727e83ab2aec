"""Paths as they are given, what the system says of them, and content as text or bytes: the words of a workspace.

Owns the codes of refusals. Opens nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.names import bytes_of

LONGEST = 4_000
"""Bytes of a path."""

_LONGEST_NAME = 255

VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EACCES, errno.EPERM})
"""How a name answers that was there a moment ago, or that its owner has closed."""

_FAULTS = {
    errno.EXDEV: ("outside", "it leads out of the workspace; use a path relative to it"),
    errno.ENOENT: ("not_found", "there is no such file; list the directory to see what there is"),
    errno.ENOTDIR: ("not_a_directory", "it, or a part of it, is no directory"),
    errno.EEXIST: ("not_a_directory", "it, or a part of it, is no directory"),
    errno.EISDIR: ("is_a_directory", "it is a directory; name a file in it"),
    errno.ENXIO: ("not_a_file", "it is no regular file"),
    errno.ENODEV: ("not_a_file", "it is no regular file"),
    errno.ELOOP: ("bad_path", "its links lead in a circle"),
    errno.ENAMETOOLONG: ("bad_path", "it, or a name in it, is too long"),
    errno.EINVAL: ("bad_path", "this file system cannot have such a name"),
    errno.EILSEQ: ("bad_path", "this file system cannot have such a name"),
    errno.EACCES: ("denied", "its mode does not allow it; change the mode in the sandbox"),
    errno.EPERM: ("denied", "its mode does not allow it; change the mode in the sandbox"),
    errno.EAGAIN: ("denied", "something renames its directories all the time; end that first"),
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def told(path: str) -> Iterator[None]:
    """What the system says within, in words that name the path: SandboxRefused or PermanentError."""
    try:
        yield
    except OSError as error:
        shown = shortened(path)
        if error.errno in _FULL:
            raise PermanentError(f"{shown} cannot be written: {error.strerror}", code="no_space") from None
        if error.errno not in _FAULTS:
            raise PermanentError(f"{shown} cannot be used: {error.strerror}", code="sandbox_io") from None
        code, said = _FAULTS[error.errno]
        raise SandboxRefused(f"{shown}: {said}", code=code) from None


def shortened(path: str) -> str:
    """A path as a message shows it."""
    return repr(path if len(path) <= 200 else path[:200] + "…")


def raw_of(path: str) -> bytes:
    """The bytes of a path that could be beneath a folder. SandboxRefused `bad_path`; OSError EXDEV: an absolute one."""
    try:
        raw = bytes_of(path)
    except UnicodeEncodeError:
        raise SandboxRefused(f"{shortened(path)}: no file can have such a name", code="bad_path") from None
    if not raw or b"\0" in raw:
        raise SandboxRefused(f"{shortened(path)}: a path is not empty and holds no NUL", code="bad_path")
    if len(raw) > LONGEST or any(len(name) > _LONGEST_NAME for name in raw.split(b"/")):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if raw.startswith(b"/"):
        raise OSError(errno.EXDEV, "not relative")
    return raw


def plain(path: bytes) -> bytes:
    """A path without what says nothing: empty names and `.`; empty for the folder itself."""
    return b"/".join(name for name in path.split(b"/") if name not in (b"", b"."))


def split(path: bytes) -> tuple[bytes, bytes]:
    """A path as its directory and the name in it. OSError EISDIR where there is no name."""
    parent, _, name = path.rpartition(b"/")
    if name in (b"", b".", b".."):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    return parent or b".", name


def refuse_special(status: os.stat_result) -> None:
    """OSError for what is no regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def text_part(data: bytes, cut: bool) -> str | None:
    """The text that bytes are, None where they are none or hold NUL; of a cut part without a character's beginning."""
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if not cut or error.reason != "unexpected end of data" or error.start == 0:
            return None
        return data[: error.start].decode()


def encoded(text: str) -> bytes:
    """Text as UTF-8. SandboxRefused for half a character."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise SandboxRefused(f"{text[:80]!a} is no text: it holds half a character", code="bad_range") from None
