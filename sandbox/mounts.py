"""Mounts of workspaces: an overlay over a base that nobody writes to, shown as the files of another user.

Owns the system calls, and that nothing stays mounted below a folder that is removed. Needs to be root on Linux; OSError
where that, or something else, is missing. Knows no snapshot.

The base belongs to root. Its files get the user of the sandbox from an idmapped mount, which copies nothing. What the
sandbox changes stands beside the workspace in `overlay`, which only root may enter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinue.sandbox.folders import remove_tree

CHANGES, LOWER = "overlay", "lower"
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE, _EMPTY_PATH, _MOVE_EMPTY, _IDMAP, _AT = 0x1, 0x1000, 0x4, 0x00100000, -100
_NOSUID, _NODEV, _DETACH, _NOFOLLOW = 0x2, 0x4, 0x2, 0x8
_libc = ctypes.CDLL(None, use_errno=True)
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("namespace", ctypes.c_uint64),
    )


def mount_overlay(base: Path, folder: Path, tree: Path, uid: int) -> None:
    """Show the files of a base at `tree`, which must not exist, as those of user `uid`; what is changed is kept in
    `folder`/overlay. OSError, and then nothing stays.
    """
    own, lower = folder / CHANGES, folder / LOWER
    try:
        for each in (own, lower, own / "work", own / "upper", tree):
            each.mkdir(mode=0o700)
        os.chown(own / "upper", uid, uid)
        with _shown_as(base, lower, uid), _paths(lower, own / "upper", own / "work") as (below, upper, work):
            options = (
                f"lowerdir={below},upperdir={upper},workdir={work},redirect_dir=on,index=off,metacopy=off,volatile"
            )
            flags = _NOSUID | _NODEV
            _check(_libc.mount(b"overlay", os.fsencode(tree), b"overlay", flags, options.encode()))
    except BaseException:
        unmount_below(folder)
        for each in (own, lower, tree):
            remove_tree(each)
        raise


def unmount_below(folder: Path) -> None:
    """Unmount all that is mounted below a folder, in use or not."""
    if sys.platform != "linux":
        return
    for each in mounted_below(folder):
        if _libc.umount2(os.fsencode(each), _DETACH | _NOFOLLOW) and ctypes.get_errno() not in (
            errno.EINVAL,
            errno.ENOENT,
        ):
            _check(-1)


def mounted_below(folder: Path) -> list[Path]:
    """Where something is mounted below a folder, the newest first."""
    top = os.fsencode(folder.resolve()) + b"/"
    with open("/proc/self/mountinfo", "rb") as table:
        points = [_ESCAPED.sub(_character, line.split(b" ", 5)[4]) for line in table]
    return [Path(os.fsdecode(point)) for point in reversed(points) if point.startswith(top)]


def is_mounted(tree: Path) -> bool:
    """Whether a workspace that is a mount is there."""
    return os.path.ismount(tree)


def _character(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


@contextmanager
def _shown_as(base: Path, at: Path, uid: int) -> Iterator[None]:
    """The base at another path with the files of root as those of a user, for as long as it takes to use it."""
    with _namespace(uid) as namespace:
        tree = _check(_libc.syscall(_OPEN_TREE, _AT, os.fsencode(base), _CLONE | os.O_CLOEXEC))
        try:
            words = _Attributes(_IDMAP, 0, 0, namespace)
            size = ctypes.sizeof(words)
            _check(_libc.syscall(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, ctypes.byref(words), size))
            _check(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT, os.fsencode(at), _MOVE_EMPTY))
        finally:
            os.close(tree)
    try:
        yield
    finally:
        _check(_libc.umount2(os.fsencode(at), _DETACH | _NOFOLLOW))


@contextmanager
def _namespace(uid: int) -> Iterator[int]:
    """A user namespace in which root is this user, as a descriptor."""
    command = ["unshare", "--user", "sh", "-c", "echo; read -r line"]
    try:
        helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PATH": _programs()}
        )
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, f"no {error.filename}") from None
    with helper:
        try:
            assert helper.stdout is not None
            if helper.stdout.readline() != b"\n":
                raise OSError(errno.EPERM, "no user namespace can be made")
            for kind in ("uid", "gid"):
                Path(f"/proc/{helper.pid}/{kind}_map").write_text(f"0 {uid} 1\n")
            fd = os.open(f"/proc/{helper.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            helper.kill()
    try:
        yield fd
    finally:
        os.close(fd)


def _programs() -> str:
    return os.environ.get("PATH", os.defpath)


@contextmanager
def _paths(*folders: Path) -> Iterator[list[str]]:
    """Short paths without any special character that mean these folders."""
    fds = []
    try:
        for folder in folders:
            fds.append(os.open(folder, os.O_PATH | os.O_CLOEXEC))
        yield [f"/proc/self/fd/{fd}" for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
