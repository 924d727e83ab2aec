"""Attempts on the kernel: calls that are doors, namespaces, mounts, modules, settings. See `trying`.

Where a call would do harm if it worked it is made with arguments that cannot: the door counts as open when the kernel
looked at them, and said so by another error than that it refuses or does not have the call.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import pty
import signal
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

Outside = dict[str, Any]

_NAMES = """
clone mount pivot_root chroot unshare setns init_module finit_module kexec_load add_key keyctl request_key bpf
perf_event_open userfaultfd syslog swapon reboot sethostname clock_settime personality modify_ldt quotactl acct
fanotify_init iopl capset seccomp migrate_pages
""".split()
_NUMBERS = {
    "x86_64": "56 165 155 161 272 308 175 313 246 248 250 249 321 298 323 103 167 169 170 227 135 154 179 163 300 172 "
    "126 317 256",
    "aarch64": "220 40 41 51 97 268 105 273 104 217 219 218 280 241 282 116 224 142 161 112 92 -1 60 89 262 -1 91 277 "
    "238",
}
_IO_URING, _OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _CLONE3, _MOUNT_SETATTR, _NEWEST = 425, 428, 429, 430, 435, 442, 468
_SHUT = (errno.EPERM, errno.ENOSYS, errno.EACCES)
_USER, _PID, _NET = 0x10000000, 0x20000000, 0x40000000


def _call(name: str | int, *words: Any) -> tuple[int, int]:
    """(result, errno)."""
    number = name if isinstance(name, int) else int(_NUMBERS[platform.machine()].split()[_NAMES.index(name)])
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(w) if isinstance(w, int) else w for w in words))
    return done, ctypes.get_errno()


def _door(name: str | int, *words: Any) -> Callable[[Outside], str]:
    """The call is made; its door is open when it works or is looked at."""

    def attempt(outside: Outside) -> str:
        done, number = _call(name, *words)
        if done < 0 and number in _SHUT:
            raise OSError(number, os.strerror(number))
        return f"gave {done}" if done >= 0 else f"was looked at: {os.strerror(number)}"

    return attempt


def _works(name: str | int, *words: Any) -> Callable[[Outside], str]:
    """The call is made, and has to work."""

    def attempt(outside: Outside) -> str:
        done, number = _call(name, *words)
        if done < 0:
            raise OSError(number, os.strerror(number))
        return f"gave {done}"

    return attempt


def _bytes(*words: int, size: int = 128) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(b"".join(word.to_bytes(4, "little") for word in words), size)


def _clone(outside: Outside) -> str:
    """fork by the bare call, into a user namespace."""
    done, number = _call("clone", _USER | 17, 0, 0, 0, 0)
    if done == 0:
        os._exit(0)
    if done < 0:
        raise OSError(number, os.strerror(number))
    os.waitpid(done, 0)
    return "a child is root of a namespace of its own"


def _clone3(outside: Outside) -> str:
    held = ctypes.create_string_buffer(_USER.to_bytes(8, "little") + b"\0" * 24 + (17).to_bytes(8, "little"), 88)
    done, number = _call(_CLONE3, ctypes.byref(held), 88)
    if done == 0:
        os._exit(0)
    if done < 0:
        raise OSError(number, os.strerror(number))
    os.waitpid(done, 0)
    return "a child is root of a namespace of its own"


def _opens(path: str, flags: int) -> Callable[[Outside], str]:
    """Only opened: what it would do is done by writing."""

    def attempt(outside: Outside) -> str:
        os.close(os.open(path, flags))
        return f"{path} was opened"

    return attempt


def _symbols(outside: Outside) -> str:
    for line in Path("/proc/kallsyms").read_text().splitlines():
        if int(line.split()[0], 16):
            return f"the kernel's addresses: {line}"
    return ""


def _other_machine(outside: Outside) -> str:
    """The calls of a 32-bit machine have other numbers: getpid by interrupt 0x80."""
    if platform.machine() != "x86_64":
        return ""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    got = function()
    return f"getpid gave {got}" if got == os.getpid() else ""


def _typed(outside: Outside) -> str:
    """Words put into a terminal, as a program does that is to be ended before its shell goes on."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ours, theirs = pty.openpty()
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    fcntl.ioctl(theirs, termios.TIOCSTI, b"x")
    os.close(ours)
    return "a word was typed"


def _capable(outside: Outside) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
    return f"capabilities {held:x}" if held else ""


def _become(outside: Outside) -> str:
    os.setgroups([0])
    os.setresuid(0, 0, 0)
    return "it is user 0"


def _gains(outside: Outside) -> str:
    return "privileges can be gained" if ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) != 1 else ""


def _dumps(outside: Outside) -> str:
    """What a crash would leave in the host's folder for cores."""
    soft = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    limit = next(line.split()[4:6] for line in Path("/proc/self/limits").read_text().splitlines() if "core" in line)
    return "" if limit == ["0", "0"] else f"cores of {limit} bytes, dumpable {soft}"


ATTEMPTS: dict[str, Callable[[Outside], str]] = {
    "unshare a user namespace": _works("unshare", _USER),
    "unshare a network namespace": _works("unshare", _NET),
    "clone into a user namespace": _clone,
    "clone3 into a user namespace": _clone3,
    "setns": _door("setns", -1, 0),
    "mount": _door("mount", b"none", b"/", b"no-such-kind", 0, None),
    "pivot_root": _door("pivot_root", b"/no/such", b"/no/such"),
    "chroot": _door("chroot", b"/no/such"),
    "fsopen": _door(_FSOPEN, b"no-such-kind", 0),
    "open_tree": _door(_OPEN_TREE, -100, b"/", 1),
    "move_mount": _door(_MOVE_MOUNT, -1, b"", -1, b"", 0),
    "mount_setattr": _door(_MOUNT_SETATTR, -1, b"", 0, None, 0),
    "load a module": _door("init_module", None, 0, b""),
    "load a module from a file": _door("finit_module", -1, b"", 0),
    "load another kernel": _door("kexec_load", 0, 0, None, 0xFFFF),
    "add a key": _works("add_key", b"user", b"escape", b"x", 1, -2),
    "read the keyring": _works("keyctl", 0, -3, 0),
    "request a key": _door("request_key", b"user", b"no-such-key", None, 0),
    "bpf": _door("bpf", 0, ctypes.byref(_bytes(2, 4, 4, 1)), 128),
    "perf events": _works("perf_event_open", ctypes.byref(_bytes(1, 128)), 0, -1, -1, 0),
    "io_uring": _works(_IO_URING, 1, ctypes.byref(_bytes(size=120))),
    "userfaultfd": _works("userfaultfd", 1),
    "read the kernel's log": _works("syslog", 10, None, 0),
    "read the kernel's addresses": _symbols,
    "swap": _door("swapon", b"/no/such", 0),
    "reboot": _door("reboot", 0, 0, 0, None),
    "set the host's name": _works("sethostname", platform.node().encode(), len(platform.node().encode())),
    "set the clock": _door("clock_settime", 0, ctypes.byref(_bytes(0, 0, 0xFFFFFFFF, 0x7FFFFFFF))),
    "choose a personality": _works("personality", 0x0040000),
    "modify_ldt": _works("modify_ldt", 0, None, 0),
    "quotactl": _door("quotactl", -1, b"/no/such", 0, None),
    "acct": _door("acct", b"/no/such"),
    "fanotify": _works("fanotify_init", 0, 0),
    "iopl": _works("iopl", 3),
    "move memory of a process": _door("migrate_pages", -1, 0, None, None),
    "calls of another architecture": _other_machine,
    "a call newer than the filter": _door(_NEWEST, 0, 0, 0, 0),
    "type into a terminal": _typed,
    "open /proc/sysrq-trigger to write": _opens("/proc/sysrq-trigger", os.O_WRONLY),
    "open the core pattern to write": _opens("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "open the program for modules to write": _opens("/proc/sys/kernel/modprobe", os.O_WRONLY),
    "open /proc/kcore": _opens("/proc/kcore", os.O_RDONLY),
    "have capabilities": _capable,
    "become root": _become,
    "gain privileges by exec": _gains,
    "leave a core": _dumps,
}
