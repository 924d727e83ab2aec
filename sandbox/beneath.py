"""Opening paths that cannot leave a folder, whoever renames what in it meanwhile.

Owns the system call that does it, and the walk that does the same where there is none. Knows no workspace and no
content. A link is followed where it stays beneath the folder, and refused (EXDEV) where it does not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import lru_cache

Opener = Callable[[int, bytes, int], int]
"""From a folder's descriptor, a path and flags of `os.open` to a descriptor. OSError: EXDEV for a path that leaves."""

_NUMBER = 437
"""Of the system call openat2, on all machines that are listed here (Linux 5.6 and newer)."""

_MACHINES = frozenset({"x86_64", "aarch64", "riscv64", "ppc64le", "s390x"})
_NO_XDEV, _NO_MAGICLINKS, _BENEATH = 0x01, 0x02, 0x08
_RACES = 128
"""How often a walk is begun again that a rename has disturbed."""

_MOST_LINKS = 40
_LONGEST = 4096


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """Open a path beneath the folder `root`: the kernel walks it where it can, else `walk_beneath` does.

    An open file never is one that lay outside. OSError as `os.open` raises it, and with EXDEV for what leads out.
    """
    if not kernel_walks():
        return walk_beneath(root, path, flags)
    for _ in range(_RACES):
        try:
            return _openat2(root, path, flags)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


@lru_cache(maxsize=1)
def kernel_walks() -> bool:
    """Whether this kernel has openat2 and lets us use it."""
    if not sys.platform.startswith("linux") or os.uname().machine not in _MACHINES:
        return False
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(_openat2(root, b".", os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _openat2(root: int, path: bytes, flags: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, _BENEATH | _NO_MAGICLINKS | _NO_XDEV)
    found: int = _syscall()(_NUMBER, root, path, ctypes.byref(how), ctypes.sizeof(how))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return found


@lru_cache(maxsize=1)
def _syscall() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t)
    call.restype = ctypes.c_long
    return call


def walk_beneath(root: int, path: bytes, flags: int) -> int:
    """The same one name at a time, without the kernel's help: no step follows a link, links are read and walked."""
    if len(path) >= _LONGEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    if not path or path.startswith(b"/"):
        raise OSError(errno.EXDEV if path else errno.ENOENT, "not beneath the folder", path)
    above = [os.dup(root)]
    try:
        return _walk(above, deque(path.split(b"/")), flags)
    finally:
        for descriptor in above:
            os.close(descriptor)


def _walk(above: list[int], names: deque[bytes], flags: int) -> int:
    """Open what `names` lead to; `above` holds the folders that were entered, the outermost first."""
    links = 0
    while names:
        name = names.popleft()
        if name == b"..":
            if len(above) == 1:
                raise OSError(errno.EXDEV, "leads out of the folder", name)
            os.close(above.pop())
        elif name not in (b"", b"."):
            opened = _step(above[-1], name, os.O_RDONLY | os.O_DIRECTORY if names else flags)
            if isinstance(opened, int):
                if not names:
                    return opened
                above.append(opened)
                continue
            links += 1
            if links > _MOST_LINKS or opened.startswith(b"/"):
                raise OSError(errno.ELOOP if links > _MOST_LINKS else errno.EXDEV, "leads out of the folder", name)
            names.extendleft(reversed(opened.split(b"/")))
    return os.open(b".", flags | os.O_CLOEXEC, dir_fd=above[-1])


def _step(folder: int, name: bytes, flags: int) -> int | bytes:
    """A descriptor of the name in a folder, or the target of the link that it is."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        # A link is ELOOP, and ENOTDIR where a folder is wanted; other systems have numbers of their own.
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK) or flags & os.O_NOFOLLOW:
            raise
        try:
            return os.readlink(name, dir_fd=folder)
        except OSError:
            raise error from None
