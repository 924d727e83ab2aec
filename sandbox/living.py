"""Workspaces on this node as their owners left them: a folder each, a lock, and a note of what was going on in it.

Owns the folder `work` of a node. A workspace is a cache: one that was cut off in an operation, or belongs to a boot of
this machine that is over, is never used again. Knows no backend and no snapshot.

    work/<sandbox id>/<number>/tree         the workspace
    work/<sandbox id>/<number>/state.json   what it holds: the sandbox's state; whether an operation is going on
    work/<sandbox id>/<number>/lock         held by the process that has it; free when that process is gone
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from retinue.runs.contracts import Frozen
from retinue.runs.sandboxes import SandboxState
from retinue.sandbox.emptying import TREE, empty_place, rest_place, wake_place
from retinue.sandbox.folders import remove_tree
from retinue.sandbox.locks import is_at, try_lock
from retinue.sandbox.mounts import mounted_below

_STATE, _LOCK = "state.json", "lock"


class Note(Frozen):
    """What is known of a workspace. `operation` is the one that is going on, or was when its process died."""

    state: SandboxState
    boot: str
    operation: str = ""
    uid: int | None = None


class Workplace:
    """A workspace that this process has for itself until it lets go of it. Blocking."""

    def __init__(self, folder: Path, lock: int, note: Note) -> None:
        self.folder = folder
        self._lock = lock
        self._note = note

    @property
    def tree(self) -> Path:
        """The workspace itself."""
        return self.folder / TREE

    @property
    def state(self) -> SandboxState:
        """As of the newest operation that ended."""
        return self._note.state

    @property
    def uid(self) -> int | None:
        """The user that the workspace belongs to; None: our own."""
        return self._note.uid

    @property
    def clean(self) -> bool:
        """Whether no operation was cut off in it."""
        return not self._note.operation

    def begin(self, operation: str) -> None:
        """From now on the workspace may differ from what its state says."""
        self._write(self._note.model_copy(update={"operation": operation}))

    def finish(self, state: SandboxState) -> None:
        """The workspace is what this state says."""
        self._write(self._note.model_copy(update={"operation": "", "state": state}))

    def let_go(self) -> None:
        """Others may have it; nothing of it stays mounted."""
        try:
            rest_place(self.folder)
        finally:
            os.close(self._lock)

    def remove(self) -> None:
        """Remove the workspace and let go of it; what cannot be removed is let go of too."""
        try:
            _remove(self.folder)
        finally:
            self.let_go()

    def _write(self, note: Note) -> None:
        new = self.folder / f"{_STATE}.new"
        new.write_bytes(note.model_dump_json().encode())
        new.replace(self.folder / _STATE)
        self._note = note


class Living:
    """The workspaces of this node. `boot` names the present boot of the machine: older workspaces are not trusted."""

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder = folder
        self._boot = boot

    def make(self, state: SandboxState, user: Callable[[str, Path], int | None]) -> Workplace:
        """Room for a new workspace: its folder `tree` is to be made, and `finish` called when that is done.

        `user` gives the user of a sandbox's folder. Older workspaces of this sandbox that nobody has are removed.
        """
        of_sandbox = self._folder / state.sandbox_id
        folder, lock = _take_number(of_sandbox)
        try:
            note = Note(state=state, boot=self._boot, uid=user(state.sandbox_id, folder))
            place = Workplace(folder, lock, note)
            place.begin("make")
            _remove_others(of_sandbox, folder)
        except BaseException:
            os.close(lock)
            raise
        return place

    def find(self, sandbox_id: str) -> Workplace | None:
        """The newest workspace of a sandbox, if nobody has it and what it says of itself can be believed."""
        newest, lock = _take_newest(self._folder / sandbox_id)
        if newest is None or lock is None:
            return None
        with ExitStack() as stack:
            stack.callback(os.close, lock)
            note = _read(newest)
            known = note is not None and note.boot == self._boot and note.state.sandbox_id == sandbox_id
            if note is None or not known or not wake_place(newest, note.state.tier, note.uid):
                return None
            stack.pop_all()
            return Workplace(newest, lock, note)

    def remove(self, sandbox_id: str) -> int:
        """Remove the workspaces of a sandbox that nobody has; how many were removed."""
        of_sandbox = self._folder / sandbox_id
        removed = _remove_others(of_sandbox, None)
        with _locked(of_sandbox) as there:
            if there and not any(of_sandbox.iterdir()):
                of_sandbox.rmdir()
        return removed

    def rest_left(self) -> int:
        """Unmount the workspaces that killed processes have left mounted; how many they were. What they hold stays, as
        when their owners had let go of them."""
        if not self._folder.is_dir():
            return 0
        top = self._folder.resolve()
        left = {place.relative_to(top).parts[:2] for place in mounted_below(top)}
        return sum(_rest(top.joinpath(*parts)) for parts in sorted(left) if len(parts) == 2)

    def all(self) -> Iterator[str]:
        """The ids of the sandboxes that have a workspace here."""
        if self._folder.is_dir():
            yield from sorted(entry.name for entry in self._folder.iterdir() if entry.is_dir())


def _take_newest(of_sandbox: Path) -> tuple[Path | None, int | None]:
    """The newest workspace of a sandbox and its lock, None when somebody has it. Who only puts what was left to rest is
    waited for."""
    with _locked(of_sandbox) as there:
        numbered = _numbered(of_sandbox) if there else []
        newest = max(numbered, key=lambda folder: int(folder.name), default=None)
        return newest, None if newest is None else _try_lock(newest)


def _rest(folder: Path) -> bool:
    """Whether nobody had a workspace, so that nothing stays mounted in it. One that was removed meanwhile is none."""
    with _locked(folder.parent):
        lock = _try_lock(folder)
        if lock is None:
            return False
        try:
            rest_place(folder)
        finally:
            os.close(lock)
    return True


def _numbered(of_sandbox: Path) -> list[Path]:
    """The folders of a sandbox that is there: it is locked."""
    return [entry for entry in of_sandbox.iterdir() if entry.name.isdecimal()]


def _take_number(of_sandbox: Path) -> tuple[Path, int]:
    """A new folder with the next number, and its lock."""
    of_sandbox.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            of_sandbox.mkdir(mode=0o711)
        with _locked(of_sandbox) as there:
            if there:
                number = 1 + max((int(folder.name) for folder in _numbered(of_sandbox)), default=0)
                folder = of_sandbox / str(number)
                folder.mkdir(mode=0o711)
                lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                return folder, lock


def _remove_others(of_sandbox: Path, but: Path | None) -> int:
    """Remove the workspaces of a sandbox that nobody has, all but one; how many."""
    removed = 0
    with _locked(of_sandbox) as there:
        others = [folder for folder in _numbered(of_sandbox) if folder != but] if there else []
        removed += sum(_remove_begun(folder) for folder in others)
    for folder in others:
        lock = _try_lock(folder)
        if lock is not None:
            try:
                _remove(folder)
            finally:
                os.close(lock)
            removed += 1
    return removed


def _remove(folder: Path) -> None:
    """Remove a workspace that we have: its note first, so that half of it is never taken for all, and its lock last, so
    that one without is nobody's.
    """
    (folder / _STATE).unlink(missing_ok=True)
    empty_place(folder)
    for each in folder.iterdir() if folder.is_dir() else ():
        if each.is_dir() and not each.is_symlink():
            remove_tree(each)
        elif each.name != _LOCK:
            each.unlink(missing_ok=True)
    with _locked(folder.parent):
        (folder / _LOCK).unlink(missing_ok=True)
        remove_tree(folder)


def _remove_begun(folder: Path) -> bool:
    """Remove a folder whose process died before it made the lock; nobody makes one meanwhile."""
    if (folder / _LOCK).exists():
        return False
    remove_tree(folder)
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Held for as long as it takes to make a folder; whether it is there. One that was removed while we waited, and
    made anew, is not the one that was locked: it is locked again.
    """
    while True:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if is_at(handle, folder):
                yield True
                return
        finally:
            os.close(handle)


def _try_lock(folder: Path) -> int | None:
    """The lock of a workspace, if it is there and nobody has it."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return None
    if try_lock(lock, fcntl.LOCK_EX) and is_at(lock, folder / _LOCK):
        return lock
    os.close(lock)
    return None


def _read(folder: Path) -> Note | None:
    """What a workspace says of itself; None when that cannot be read."""
    try:
        return Note.model_validate_json((folder / _STATE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
