"""The process beside a host that starts programs: a small one, so that a start is cheap, with one keeper for each exec.

Run as a file by a bare interpreter (`python -I -S`): it imports the standard library only and knows nothing of Retinue.
It reads one order after the other from the socket that is its standard input and forks a keeper for each, which waits
for what it has to start. A keeper is the subreaper of all that its program starts, so nothing gets away from it: when
the program has ended, or the host says so or is gone, it kills what is left, and tells the host when nothing is.

Between fork and exec the program's process gets, in this order: groups, a view of folders that its user cannot reach,
its files, limits, its user, and at last what confines it. A step that fails ends it before it has run anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, NoReturn

FIRST_FILE = 10
"""The number that the first passed file has in the program; the next ones follow."""

NO_PROGRAM = "exec "
"""How a failure begins that means that there is no such program."""

NO_FOLDER = "chdir "
NO_USER = "cannot become user"
"""The same for a working folder that is none, and for a sandbox's user that cannot be had."""

LANDLOCK_CREATE_RULESET = 444
"""The same number on all machines, like those of the two calls that go with it."""

_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_PATH_BENEATH = 1
_AGAIN_SECONDS = 0.05
"""Between two looks for processes that appeared while others were killed."""

_MOST_FILES = 64
_TELLS = 256
"""Where a program's process has the file that says what failed, above every other one."""

_BEGUN = b"b"
_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWNS = 0x20000
_MS_PRIVATE_REC = 0x40000 | 0x4000
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_LINUX = sys.platform == "linux"

Request = dict[str, Any]


class _Program(ctypes.Structure):
    """`struct sock_fprog`: a filter's length in instructions of eight bytes, and where it is."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def serve(asked: socket.socket) -> None:
    """Fork a keeper for each control socket that comes, with the control groups of its program, until the host is
    gone. Beginnings are made ready before they are needed: forking and joining a group takes longer than the rest.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    while True:
        message, files, _, _ = socket.recv_fds(asked, 1, _MOST_FILES)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            _keep(libc, _content(files[0]), socket.socket(fileno=files[1]))
        for file in files:
            os.close(file)


def _keep(libc: ctypes.CDLL, cgroups: list[str], control: socket.socket) -> NoReturn:
    """One exec from start to end, then exit: nothing of it is left."""
    try:
        woken = _wake_on_children(libc)
        tells, child = _start(libc, cgroups, control)
        if os.read(tells, 1) == _BEGUN:
            _tell(control, {"pid": child, "keeper": os.getpid()})
            _supervise(control, woken, child)
        said = os.read(tells, 4096).decode(errors="replace")
        _tell(control, {"gone": True, "failed": said})
    except BaseException as error:  # the host has to learn of it, whatever it was
        _tell(control, {"failed": f"{type(error).__name__}: {error}"})
        os._exit(1)
    os._exit(0)


def _content(file: int) -> Any:
    """The JSON that a passed file holds; the file is closed."""
    try:
        return json.loads(os.pread(file, os.fstat(file).st_size, 0))
    finally:
        os.close(file)


def _wake_on_children(libc: ctypes.CDLL) -> int:
    """A file that becomes readable when a child has ended; from here all orphans below are children too."""
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    if _LINUX:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return woken


def _start(libc: ctypes.CDLL, cgroups: list[str], control: socket.socket) -> tuple[int, int]:
    """(file that tells when the program's process has its request, and then what failed before exec; its pid)."""
    failed, tells = os.pipe()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        os.dup2(tells, _TELLS, inheritable=False)
        try:
            _wait_for_request(libc, cgroups, control)
        except BaseException as error:
            os.write(_TELLS, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(127)
    os.close(tells)
    return failed, child


def _wait_for_request(libc: ctypes.CDLL, cgroups: list[str], control: socket.socket) -> None:
    """In the child: join the groups, then become the program that is asked for. A host that goes without asking for
    one ends it.
    """
    os.setsid()
    if _LINUX:
        _offer_to_the_kernel()
    joined = ""
    try:
        for member in cgroups:
            with open(member, "w") as group:
                group.write("0")
    except OSError as error:
        joined = f"{type(error).__name__}: {error}"
    message, files, _, _ = socket.recv_fds(control, 1, _MOST_FILES)
    if message:
        os.write(_TELLS, _BEGUN + joined.encode())
        if not joined:
            _become(libc, _content(files[0]), files[1:])


def _become(libc: ctypes.CDLL, request: Request, files: list[int]) -> None:
    """All that comes before the program, then the program. Returns never; raises what failed."""
    os.umask(0o022)
    if request["covers"]:
        _cover(libc, request["covers"])
    _place_files(files)
    for name, soft, hard in request["limits"]:
        _limit(getattr(resource, name), soft, hard)
    if request["uid"] is not None:
        _take_user(request["uid"])
    if _LINUX:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _enter_folder(request["cwd"])
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if request["locked"] is not None:
        _lock(libc, request["locked"])
    try:
        os.execvpe(request["argv"][0], request["argv"], request["environment"])
    except OSError as error:
        os.write(_TELLS, f"{NO_PROGRAM}{request['argv'][0]}: {error.strerror}".encode())
        os._exit(127)


def _take_user(uid: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise OSError(error.errno, f"{NO_USER} {uid}: {error.strerror}") from None
    if {*os.getresuid(), *os.getresgid()} != {uid} or uid == 0:
        raise OSError(errno.EINVAL, f"{NO_USER} {uid}: it stands for another one")


def _offer_to_the_kernel() -> None:
    """When the whole machine is out of memory, a sandbox ends before its host does."""
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def _enter_folder(folder: str) -> None:
    """As the program's user: he must not stand where he could not go."""
    try:
        os.chdir(folder)
    except OSError as error:
        os.write(_TELLS, f"{NO_FOLDER}{folder}: {error.strerror}".encode())
        os._exit(127)


def _limit(number: int, soft: int, hard: int) -> None:
    """Both bounds, or what is in force already where that is lower."""
    most = resource.getrlimit(number)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(number, (soft, hard))


def _cover(libc: ctypes.CDLL, covers: dict[str, str]) -> None:
    """In a mount namespace of this process only: the folders that are covers become empty ones that let everybody
    through, and each path below is put back where it was.
    """
    _check(libc.unshare(_CLONE_NEWNS), "unshare")
    _check(libc.mount(b"none", b"/", b"", ctypes.c_ulong(_MS_PRIVATE_REC), b""), "mount /")
    clone = ctypes.c_uint(_OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC)
    trees = [(path, libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), clone)) for path in covers]
    folders = {path for path in covers if os.path.isdir(path)}
    for folder in sorted(set(covers.values())):
        options = b"mode=0755,size=64k"
        _check(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), options), f"mount {folder}")
    for path, tree in trees:
        _check(tree, f"open_tree {path}")
        if path in folders:
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        moved = libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)
        _check(moved, f"move_mount {path}")


def _place_files(files: list[int]) -> None:
    """The first three to 0, 1 and 2, the others from FIRST_FILE on; nothing else stays open but what exec closes."""
    held = [os.dup2(file, _TELLS + 1 + number, inheritable=False) for number, file in enumerate(files)]
    for number, file in enumerate(held):
        os.dup2(file, number if number < 3 else FIRST_FILE + number - 3)
    os.closerange(3, FIRST_FILE)
    os.closerange(FIRST_FILE + len(files) - 3, _TELLS)
    os.closerange(_TELLS + 1, _TELLS + 1 + _MOST_FILES)


def _lock(libc: ctypes.CDLL, locked: Request) -> None:
    """No new privileges, then a Landlock domain and a filter of system calls (classic BPF in hexadecimal)."""
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _enter_domain(libc, locked["handled"], locked["rules"])
    code = bytes.fromhex(locked["filter"])
    held = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(held, ctypes.c_void_p))
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp")


def _enter_domain(libc: ctypes.CDLL, handled: list[int], rules: list[tuple[str, int]]) -> None:
    """`handled` are the masks of `struct landlock_ruleset_attr`, as many as this kernel has; each rule allows the
    accesses of a mask beneath a path.
    """
    masks = (ctypes.c_uint64 * len(handled))(*handled)
    size = ctypes.c_size_t(ctypes.sizeof(masks))
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(masks), size, 0)
    _check(ruleset, "landlock_create_ruleset")
    for path, allowed in rules:
        folder = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, folder), 12)
        added = libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.byref(rule), 0)
        _check(added, f"landlock_add_rule {path}")
        os.close(folder)
    _check(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _check(result: int, step: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")


def _supervise(control: socket.socket, woken: int, child: int) -> None:
    """Wait for the program, or for the host to say stop or to be gone; then end and reap everything below."""
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    ended, left, stopped = False, True, False
    while not (ended or stopped):
        ready = {file for file, _ in waiting.poll()}
        stopped = control.fileno() in ready
        if woken in ready:
            _drain(woken)
            ended, left = _reap(control, child)
    waiting.unregister(control)
    while left:
        _kill_below(None if ended else child)
        again = time.monotonic() + _AGAIN_SECONDS
        while left and (rest := again - time.monotonic()) > 0:
            waiting.poll(rest * 1000)
            _drain(woken)
            more, left = _reap(control, child)
            ended = ended or more


def _reap(control: socket.socket, child: int) -> tuple[bool, bool]:
    """Collect those who have ended: (whether the program is one of them, whether any child is left)."""
    ended = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        if pid == child:
            ended = True
            _tell(control, {"status": status})


def _kill_below(child: int | None) -> None:
    """Kill the children, and with a namespace's first process all in it. Then stop all descendants until no new one
    appears, and kill them: a process that forks cannot outrun that.
    """
    if not _LINUX:
        _signal_group(child)
        return
    for pid in _children(os.getpid()):
        _send(pid, signal.SIGKILL)
    stopped: set[int] = set()
    while fresh := set(descendants(os.getpid())) - stopped:
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
        stopped |= fresh
    for pid in stopped:
        _send(pid, signal.SIGKILL)


def _signal_group(child: int | None) -> None:
    """The way of systems that do not say who is below whom."""
    if child is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def descendants(top: int) -> list[int]:
    """The processes below one, as they are now."""
    found: list[int] = []
    parents = [top]
    while parents:
        below = _children(parents.pop())
        found += below
        parents += below
    return found


def _children(pid: int) -> list[int]:
    """Those of all its threads; of one that has just ended, none."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as listed:
                found += map(int, listed.read().split())
    except OSError:
        return found
    return found


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _drain(woken: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(woken, 65536)


def _tell(control: socket.socket, said: Request) -> None:
    """To the host, if it still listens."""
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
