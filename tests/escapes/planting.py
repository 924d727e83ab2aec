"""What stands outside to be reached, and what came of it: files, processes, listeners, memory of the host's user.

Everything is real and made for one trial: a file for each attempt that would change one, a process for each that would
end or slow one. `Planted.reached` looks at it afterwards, from outside.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NEIGHBOUR = 64003
"""The user of another sandbox."""

FILES = (
    "write into a file",
    "remove a file",
    "rename a file away",
    "cut a file",
    "change a file's mode",
    "change a file's times",
    "change a file's attributes",
)
_VICTIM = """
import ctypes, os, sys
token = ctypes.create_string_buffer(os.environ["TOKEN"].encode())
file = os.open("secret", os.O_RDONLY)
print(ctypes.addressof(token), file, flush=True)
sys.stdin.read()
"""
_VICTIMS = ("pid", "ended", "stopped", "owned")
_SLOWED = {
    "slow a process": lambda pid: os.getpriority(os.PRIO_PROCESS, pid),
    "bind a process to a core": os.sched_getaffinity,
    "schedule a process": os.sched_getscheduler,
    "lower a process's disk priority": lambda pid: _ioprio(pid),
    "limit a process": lambda pid: _limits(pid),
}


def _ioprio(pid: int) -> int:
    number = {"x86_64": 252, "aarch64": 31}[os.uname().machine]
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_long(1), ctypes.c_long(pid)))


def _limits(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


@dataclass
class Planted:
    """`facts` is what the attempts are told. `token` is in nothing that they are told: who has it, read something."""

    facts: dict[str, Any]
    token: str
    folder: Path
    victims: dict[str, subprocess.Popen[bytes]]
    listeners: dict[str, socket.socket]
    before: dict[str, Any] = field(default_factory=dict)

    def look(self) -> None:
        """As things are before anybody tries."""
        self.before = self._state()

    def reached(self, name: str) -> str:
        """What an attempt has done outside; nothing if it has not, or leaves nothing to see."""
        if name in self.listeners:
            return _heard(self.listeners[name])
        if name == "make a file":
            return "a file was made" if (self.folder / "made").exists() else ""
        if name not in self.before:
            return ""
        now = self._state()[name]
        return "" if now == self.before[name] else f"{self.before[name]} became {now}"[:200]

    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: _print(Path(self.facts["files"][name])) for name in FILES}
        if not self.victims:
            return found
        for name, look in _SLOWED.items():
            found[name] = look(self.victims["pid"].pid)
        found["slow all of the user"] = os.getpriority(os.PRIO_PROCESS, self.victims["stopped"].pid)
        found["end a process"] = _is_up(self.victims["ended"])
        found["have the kernel signal a process"] = _is_up(self.victims["owned"])
        found["stop a process by pidfd"] = _is_up(self.victims["stopped"])
        return found


def _print(file: Path) -> tuple[Any, ...]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return ("gone",)
    return file.read_text(), oct(status.st_mode), status.st_mtime_ns, os.listxattr(file)


def _is_up(process: subprocess.Popen[bytes]) -> str:
    """A signal that was sent needs a moment."""
    time.sleep(0.05)
    if process.poll() is not None:
        return f"ended {process.returncode}"
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "stopped" if state in "Tt" else "up"


def _heard(listener: socket.socket) -> str:
    try:
        if listener.type == socket.SOCK_DGRAM:
            return f"it heard {listener.recv(100)!r}"
        connection, _ = listener.accept()
        connection.close()
    except BlockingIOError:
        return ""
    return "a connection came"


@contextmanager
def planted(workspace: Path, *, processes: bool = True) -> Iterator[Planted]:
    """For a sandbox with this workspace; all of it is gone afterwards. Without `processes` there are files only."""
    token = f"token-{os.urandom(8).hex()}"
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="outside-"))
        stack.callback(shutil.rmtree, folder, True)
        files = _files(folder, token)
        victims = {name: stack.enter_context(_victim(folder, token)) for name in (_VICTIMS if processes else ())}
        told = {name: victim.stdout.readline().split() for name, victim in victims.items() if victim.stdout}
        listeners = _listen(stack, folder)
        facts: dict[str, Any] = {
            "secret": str(folder / "secret"),
            "folder": str(folder),
            "files": files,
            "neighbour": str(_neighbour(stack, token)),
            **{name: victim.pid for name, victim in victims.items()},
            **dict(zip(("address", "file"), map(int, told.get("pid", ())), strict=False)),
            "host": os.getpid(),
            "owner": os.geteuid(),
            "port": listeners["connect to the host's loopback"].getsockname()[1],
            "datagrams": listeners["send a datagram to the host's loopback"].getsockname()[1],
            "free": _free_port(),
            "netns": os.readlink("/proc/self/ns/net"),
            "socket": str(folder / "socket"),
            "abstract": folder.name,
            "shm": str(_shm_file(stack, token)),
            "key": _segment(stack, token),
            "queue": _queue(stack),
            "setuid": _setuid(workspace),
        }
        yield Planted(facts, token, folder, victims, listeners)


def _files(folder: Path, token: str) -> dict[str, str]:
    """What only a confinement protects: everybody may read the folder and write in it."""
    folder.chmod(0o777)
    (folder / "secret").write_text(token)
    (folder / token).write_text("")
    (folder / "secret").chmod(0o644)
    found = {}
    for number, name in enumerate(FILES):
        file = folder / f"file-{number}"
        file.write_text("as it was")
        file.chmod(0o666)
        found[name] = str(file)
    return found


@contextmanager
def _victim(folder: Path, token: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _VICTIM, token],
        cwd=folder,
        env={"TOKEN": token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def _neighbour(stack: ExitStack, token: str) -> Path:
    """The workspace of another sandbox: its user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="neighbour-"))
    stack.callback(shutil.rmtree, folder, True)
    (folder / "file").write_text(token)
    if os.geteuid() == 0:
        os.chown(folder, NEIGHBOUR, NEIGHBOUR)
    return folder / "file"


def _listen(stack: ExitStack, folder: Path) -> dict[str, socket.socket]:
    found = {}
    first = socket.create_server(("127.0.0.1", 0))
    port = first.getsockname()[1]
    found["connect to the host's loopback"] = first
    for name, address in (("connect to a unix socket", str(folder / "socket")), ("connect to an abstract socket", "")):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address or "\0" + folder.name)
        listener.listen()
        found[name] = listener
    (folder / "socket").chmod(0o777)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", port))
    found["send a datagram to the host's loopback"] = datagrams
    for listener in found.values():
        stack.enter_context(listener)
        listener.setblocking(False)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _shm_file(stack: ExitStack, token: str) -> Path:
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    made = folder / f"outside-{os.urandom(6).hex()}"
    made.write_text(token)
    made.chmod(0o644)
    stack.callback(made.unlink)
    return made


def _segment(stack: ExitStack, token: str) -> int:
    """Shared memory of System V that everybody may read."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = int.from_bytes(os.urandom(3), "little") | 0x7E000000
    segment = libc.shmget(key, 4096, 0o1644 & 0o777 | 0o1000)
    assert segment >= 0, os.strerror(ctypes.get_errno())
    stack.callback(libc.shmctl, segment, 0, None)
    libc.shmat.restype = ctypes.c_void_p
    at = libc.shmat(segment, None, 0)
    ctypes.memmove(at, token.encode() + b"\0", len(token) + 1)
    libc.shmdt(ctypes.c_void_p(at))
    return key


def _queue(stack: ExitStack) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"/outside-{os.urandom(6).hex()}"
    made = libc.mq_open(name.encode(), os.O_RDWR | os.O_CREAT, 0o644, None)
    if made >= 0:
        stack.callback(libc.mq_unlink, name.encode())
        stack.callback(os.close, made)
    return name


def _setuid(workspace: Path) -> str:
    """A copy of `id` that belongs to the host's user, in the workspace."""
    made = workspace / "setuid-id"
    shutil.copy(shutil.which("id") or "/usr/bin/id", made)
    made.chmod(0o4755)
    return "./setuid-id"
