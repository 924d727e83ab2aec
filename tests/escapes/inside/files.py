"""Attempts on files: those of the host, of other sandboxes, of other processes, devices, /sys. See `trying`."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Outside = dict[str, Any]

_DEVICES = "mem port kmsg kvm fuse loop-control net/tun mapper/control btrfs-control vhost-net autofs".split()
"""Of those that are no disks: opening one to read changes nothing, as it would with a watchdog."""


def _read(outside: Outside) -> str:
    return Path(outside["secret"]).read_text()


def _write(outside: Outside) -> str:
    with open(outside["files"]["write into a file"], "a") as file:
        file.write("from inside")
    return ""


def _make(outside: Outside) -> str:
    Path(outside["folder"], "made").write_text("from inside")
    return ""


def _remove(outside: Outside) -> str:
    os.unlink(outside["files"]["remove a file"])
    return ""


def _rename(outside: Outside) -> str:
    os.rename(outside["files"]["rename a file away"], os.path.join(outside["folder"], "renamed"))
    return ""


def _link(outside: Outside) -> str:
    os.link(outside["secret"], "hard")
    return Path("hard").read_text()


def _mode(outside: Outside) -> str:
    os.chmod(outside["files"]["change a file's mode"], 0o600)
    return ""


def _times(outside: Outside) -> str:
    os.utime(outside["files"]["change a file's times"], (1, 1))
    return ""


def _attribute(outside: Outside) -> str:
    os.setxattr(outside["files"]["change a file's attributes"], "user.from", b"inside")
    return ""


def _truncate(outside: Outside) -> str:
    os.truncate(outside["files"]["cut a file"], 0)
    return ""


def _list(outside: Outside) -> str:
    return " ".join(os.listdir(outside["folder"]))


def _size(outside: Outside) -> str:
    return f"it has {os.stat(outside['secret']).st_size} bytes"


def _watch(outside: Outside) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.inotify_add_watch(libc.inotify_init1(0), outside["folder"].encode(), 0x2)
    return "its changes are told" if done >= 0 else _failed()


def _failed() -> str:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _through_link(outside: Outside) -> str:
    os.symlink(outside["secret"], "planted")
    return Path("planted").read_text()


def _upwards(outside: Outside) -> str:
    return Path("../" * 40 + outside["secret"]).read_text()


def _enter(outside: Outside) -> str:
    os.chdir(outside["folder"])
    return Path("secret").read_text()


def _neighbour(outside: Outside) -> str:
    return Path(outside["neighbour"]).read_text()


def _first_root(outside: Outside) -> str:
    return _any_of(Path(f"/proc/{pid}/root{outside['secret']}") for pid in (1, os.getppid()))


def _any_of(paths: Iterator[Path]) -> str:
    found = ""
    for path in paths:
        try:
            found += path.read_text(errors="replace")[:4_000]
        except OSError:
            continue
    return found


def _every_root(outside: Outside) -> str:
    return _any_of(Path(f"/proc/{pid}/{way}") for pid in _pids() for way in (f"root{outside['secret']}", "cwd/secret"))


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _own_files(outside: Outside) -> str:
    """Whatever was left open by those who started us, but for our streams and the pipe of the attempt."""
    mine = {os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
    found = []
    for number in range(3, 1024):
        try:
            kind = os.fstat(number).st_mode
        except OSError:
            continue
        if not stat.S_ISFIFO(kind):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return ", ".join(name for name in found if name not in mine and not name.startswith("/proc"))


def _files_of_others(outside: Outside) -> str:
    found = ""
    for pid in [str(outside["pid"]), *_pids()]:
        if int(pid) not in (os.getpid(), os.getppid()):
            for number in range(3, 12):
                found += _any_of(iter([Path(f"/proc/{pid}/fd/{number}")]) if _is_plain(pid, number) else iter(()))
    return found


def _is_plain(pid: str, number: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(f"/proc/{pid}/fd/{number}").st_mode)
    except OSError:
        return False


def _handle(outside: Outside) -> str:
    """The calls by which a root of a container reads the host's disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(136)
    ctypes.memmove(held, (128).to_bytes(4, "little"), 4)
    mount = ctypes.c_int()
    done = libc.name_to_handle_at(-100, b"/", held, ctypes.byref(mount), 0)
    folder = os.open("/", os.O_RDONLY)
    file = libc.open_by_handle_at(folder, held, os.O_RDONLY) if done >= 0 else -1
    return f"a file by its handle: {file}" if file >= 0 else _failed()


def _node(outside: Outside) -> str:
    os.mknod("disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))
    return "a disk's node was made"


def _devices(outside: Outside) -> str:
    disks = [name for name in os.listdir("/dev") if stat.S_ISBLK(os.lstat(f"/dev/{name}").st_mode)]
    found = []
    for name in (*_DEVICES, *disks):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            continue
        found.append(name)
    return " ".join(found)


def _sys(outside: Outside) -> str:
    return " ".join(os.listdir("/sys/kernel")) + Path("/sys/power/state").read_text()


def _groups(outside: Outside) -> str:
    """A release agent is how cgroups of version 1 were a way out."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        at, kind = line.split()[1:3]
        if kind.startswith("cgroup") and os.access(at, os.W_OK):
            found.append(at)
    return " ".join(found)


def _setuid(outside: Outside) -> str:
    """A program in the workspace that belongs to the host's user, with his setuid bit."""
    said = subprocess.run([outside["setuid"], "-u"], capture_output=True, text=True, check=True).stdout.strip()
    return "it ran as its owner" if said == str(outside["owner"]) and os.getuid() != outside["owner"] else ""


def _capabilities(outside: Outside) -> str:
    Path("capable").write_text("")
    os.setxattr("capable", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    return "a file was given capabilities"


ATTEMPTS = {
    "read a file": _read,
    "write into a file": _write,
    "make a file": _make,
    "remove a file": _remove,
    "rename a file away": _rename,
    "cut a file": _truncate,
    "change a file's mode": _mode,
    "change a file's times": _times,
    "change a file's attributes": _attribute,
    "hard link to a file": _link,
    "list a folder": _list,
    "learn a file's size": _size,
    "watch a folder": _watch,
    "read through a planted link": _through_link,
    "read by way of ..": _upwards,
    "read after entering the folder": _enter,
    "read another sandbox's workspace": _neighbour,
    "read by /proc/1/root": _first_root,
    "read by the root and folder of any process": _every_root,
    "files left open by the host": _own_files,
    "read by the open files of any process": _files_of_others,
    "open by a file handle": _handle,
    "make a device node": _node,
    "open devices": _devices,
    "read /sys": _sys,
    "write control groups": _groups,
    "run a setuid program": _setuid,
    "give a file capabilities": _capabilities,
}
