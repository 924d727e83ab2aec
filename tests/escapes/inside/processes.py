"""Attempts on processes: environments, memory, signals, limits of those outside. See `trying`."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Any

Outside = dict[str, Any]

_NUMBERS = {
    "x86_64": {"sched_setattr": 314, "ioprio_set": 251, "kcmp": 312, "process_vm_readv": 310},
    "aarch64": {"sched_setattr": 274, "ioprio_set": 30, "kcmp": 272, "process_vm_readv": 270},
}
_PIDFD_OPEN, _PIDFD_GETFD, _PIDFD_SEND_SIGNAL = 434, 438, 424
_PTRACE_SEIZE = 0x4206


def call(number: int, *words: Any) -> int:
    """A system call by its number; OSError where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.syscall(ctypes.c_long(number), *(_word(word) for word in words))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def _word(word: Any) -> Any:
    return ctypes.c_long(word) if isinstance(word, int) else word


def number_of(name: str) -> int:
    """Of a call on this machine."""
    return _NUMBERS[platform.machine()][name]


def _environment(outside: Outside) -> str:
    return _with(Path(f"/proc/{outside['pid']}/environ").read_bytes(), outside)


def _every_environment(outside: Outside) -> str:
    found = b""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (outside["pid"], outside["stopped"]):
            try:
                found += Path("/proc", name, "environ").read_bytes()
            except OSError:
                continue
    return _with(found, outside)


def _with(found: bytes, outside: Outside) -> str:
    return str(outside["token"]) if outside["token"].encode() in found else ""


def _first_environment(outside: Outside) -> str:
    return _with(Path("/proc/1/environ").read_bytes(), outside)


def _parents_environment(outside: Outside) -> str:
    return _with(b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in _above()), outside)


def _above() -> list[int]:
    """Those who started us, up to the host."""
    found, pid = [], os.getppid()
    while pid > 1:
        found.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found[1:]


def _own_environment(outside: Outside) -> str:
    return _with(repr(os.environ).encode(), outside)


def _maps(outside: Outside) -> str:
    return Path(f"/proc/{outside['pid']}/maps").read_text()[:200]


def _memory(outside: Outside) -> str:
    with open(f"/proc/{outside['pid']}/mem", "rb") as file:
        file.seek(outside["address"])
        return file.read(len(outside["token"])).decode()


def _read_memory(outside: Outside) -> str:
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    held = ctypes.create_string_buffer(len(outside["token"]))
    mine, theirs = Part(ctypes.addressof(held), len(held)), Part(outside["address"], len(held))
    call(number_of("process_vm_readv"), outside["pid"], ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return held.raw.decode()


def _trace(outside: Outside) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_SEIZE, outside["pid"], None, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "it was seized"


def _take_file(outside: Outside) -> str:
    handle = call(_PIDFD_OPEN, outside["pid"], 0)
    file = call(_PIDFD_GETFD, handle, outside["file"], 0)
    return os.pread(file, 100, 0).decode()


def _compare(outside: Outside) -> str:
    return f"kcmp says {call(number_of('kcmp'), os.getpid(), outside['pid'], 1, 0, 0)}"


def _end(outside: Outside) -> str:
    os.kill(outside["ended"], signal.SIGTERM)
    return ""


def _stop(outside: Outside) -> str:
    handle = call(_PIDFD_OPEN, outside["stopped"], 0)
    call(_PIDFD_SEND_SIGNAL, handle, signal.SIGSTOP, None, 0)
    return ""


def _see_host(outside: Outside) -> str:
    os.kill(outside["host"], 0)
    return "the host can be signaled"


def _owner(outside: Outside) -> str:
    """A signal that the kernel sends for us: the owner of a pipe's end is told of what comes."""
    reads, writes = os.pipe()
    libc = ctypes.CDLL(None, use_errno=True)
    for number, word in ((10, signal.SIGTERM), (8, outside["owned"]), (4, os.O_ASYNC | os.O_NONBLOCK)):
        if libc.fcntl(reads, number, word) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.write(writes, b"now")
    return ""


def _limit(outside: Outside) -> str:
    resource.prlimit(outside["pid"], resource.RLIMIT_CORE, (0, 0))
    return ""


def _nice(outside: Outside) -> str:
    os.setpriority(os.PRIO_PROCESS, outside["pid"], 15)
    return ""


def _nice_all(outside: Outside) -> str:
    """Never as root where nothing holds it: it would slow the machine."""
    if os.getuid() == 0:
        raise PermissionError("not tried as root")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_USER, 0, before + 1)
    return ""


def _affinity(outside: Outside) -> str:
    os.sched_setaffinity(outside["pid"], {0})
    return ""


def _schedule(outside: Outside) -> str:
    nice = os.getpriority(os.PRIO_PROCESS, outside["pid"])
    held = ctypes.create_string_buffer(struct.pack("=IIQi", 56, 3, 0, nice), 56)
    call(number_of("sched_setattr"), outside["pid"], ctypes.byref(held), 0)
    return ""


def _disk_priority(outside: Outside) -> str:
    call(number_of("ioprio_set"), 1, outside["pid"], 3 << 13)
    return ""


def _listed(outside: Outside) -> str:
    return Path(f"/proc/{outside['pid']}/cmdline").read_text()


def _there(outside: Outside) -> str:
    owner = os.stat(f"/proc/{outside['pid']}").st_uid
    return f"it is user {owner}'s"


ATTEMPTS = {
    "read the environment of a process": _environment,
    "read the environment of every process": _every_environment,
    "read the environment of number 1": _first_environment,
    "read the environment of those above": _parents_environment,
    "find the host's variables in its own": _own_environment,
    "read a process's map": _maps,
    "read memory by /proc/PID/mem": _memory,
    "read memory by process_vm_readv": _read_memory,
    "trace a process": _trace,
    "take an open file by pidfd_getfd": _take_file,
    "compare with a process (kcmp)": _compare,
    "end a process": _end,
    "stop a process by pidfd": _stop,
    "signal the host": _see_host,
    "have the kernel signal a process": _owner,
    "limit a process": _limit,
    "slow a process": _nice,
    "slow all of the user": _nice_all,
    "bind a process to a core": _affinity,
    "schedule a process": _schedule,
    "lower a process's disk priority": _disk_priority,
    "read a process's command line": _listed,
    "see that a process is there": _there,
}
