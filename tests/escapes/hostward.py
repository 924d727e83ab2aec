"""Attempts to make the host act for the sandbox: by links and races in what it reads, writes, keeps, restores, mounts.

A program inside prepares, or goes on changing things, while the host does what it does with any workspace.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.doubles.sealed import FolderCiphers
from tests.escapes.planting import Planted, planted
from tests.escapes.trials import UID, Cell, Outcome, cell

from retinue.runs.errors import RetinueError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import remove_tree
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.workspaces import Workspace

TENANT = "acme"
_TRIES = 250

_SWAP = """
import os, sys
folder = sys.argv[1]
os.makedirs("real", exist_ok=True)
open("real/secret", "w").write("mine")
os.rename("real", "name")
print("begun", flush=True)
while not os.path.exists("over"):
    os.symlink(folder, "trap")
    os.rename("name", "real")
    os.rename("trap", "name")
    os.unlink("name")
    os.rename("real", "name")
"""
_SWAP_FILE = """
import os, sys
print("begun", flush=True)
while not os.path.exists("over"):
    open("fresh", "w").write("mine")
    os.rename("fresh", "name")
    os.symlink(sys.argv[1], "trap")
    os.rename("trap", "name")
"""


@asynccontextmanager
async def _meanwhile(at: Cell, code: str, *words: str) -> AsyncIterator[None]:
    """While a program inside goes on."""
    begun = asyncio.Event()
    running = asyncio.create_task(at.python(code, *words, timeout=30, output=lambda *_: begun.set()))
    try:
        async with asyncio.timeout(20):
            await begun.wait()
        yield
    finally:
        (at.workspace / "over").touch()
        await running


def _files(at: Cell) -> Workspace:
    return Workspace(at.workspace, UID)


def _refused(act: Callable[[], object]) -> str:
    try:
        return str(act())
    except RetinueError as error:
        return f"refused: {error}"


async def _prepare(at: Cell, script: str) -> None:
    done = await at.run("sh", "-c", script)
    assert done.ok, done


async def _read_link(at: Cell, outside: Planted) -> Outcome:
    await _prepare(at, f"ln -s {outside.facts['folder']} out; ln -s {outside.facts['secret']} link")
    said = [_refused(lambda path=path: _files(at).read(path)) for path in ("out/secret", "link", "../../etc/passwd")]
    return _by_token(outside, *said)


def _by_token(outside: Planted, *said: str) -> Outcome:
    return Outcome("open" if any(outside.token in one for one in said) else "stopped", said[0][:100])


async def _write_link(at: Cell, outside: Planted) -> Outcome:
    await _prepare(at, f"ln -s {outside.facts['folder']} out; ln -s {outside.facts['folder']}/made link")
    said = [_refused(lambda path=path: _files(at).write(path, b"by the host")) for path in ("out/made", "link")]
    said.append(_refused(lambda: _files(at).edit("out/file-0", "as it was", "changed")))
    return _by_change(outside, said)


def _by_change(outside: Planted, said: list[str]) -> Outcome:
    change = outside.reached("make a file") or outside.reached("write into a file")
    return Outcome("open" if change else "stopped", change or said[0][:100])


async def _list_link(at: Cell, outside: Planted) -> Outcome:
    await _prepare(at, f"ln -s {outside.facts['folder']} out")
    said = [_refused(lambda path=path: _files(at).list(path, 3)) for path in ("out", "out/..", ".")]
    return Outcome("open" if any(outside.token in one for one in said) else "stopped", said[0][:100])


async def _hang(at: Cell, outside: Planted) -> Outcome:
    await _prepare(at, "mkfifo pipe; ln -s pipe link")
    async with asyncio.timeout(10):
        said = [await asyncio.to_thread(_refused, lambda path=path: _files(at).read(path)) for path in ("pipe", "link")]
    return Outcome("stopped" if all(one.startswith("refused") for one in said) else "open", said[0])


async def _race(at: Cell, outside: Planted, act: Callable[[int], object]) -> list[str]:
    async with _meanwhile(at, _SWAP, str(outside.folder)):
        return [await asyncio.to_thread(_refused, lambda n=n: act(n)) for n in range(_TRIES)]


async def _read_race(at: Cell, outside: Planted) -> Outcome:
    return _by_token(outside, *await _race(at, outside, lambda _: _files(at).read("name/secret")))


async def _write_race(at: Cell, outside: Planted) -> Outcome:
    said = await _race(at, outside, lambda n: _files(at).write("name/made", b"by the host"))
    return _by_change(outside, said)


async def _list_race(at: Cell, outside: Planted) -> Outcome:
    said = await _race(at, outside, lambda _: _files(at).list("name"))
    return Outcome("open" if any(outside.token in one for one in said) else "stopped", said[0][:100])


@asynccontextmanager
async def _store() -> AsyncIterator[tuple[Snapshots, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="kept-"))
    snapshots = Snapshots(LocalObjects(folder / "store"), FolderCiphers(folder / "keys"))
    try:
        yield snapshots, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _snapshot_race(at: Cell, outside: Planted) -> Outcome:
    """What is kept while a file becomes a link and back again: taken apart, it has nothing from outside."""
    found = ""
    async with _store() as (snapshots, folder), _meanwhile(at, _SWAP_FILE, outside.facts["secret"]):
        for number in range(12):
            try:
                taken = await snapshots.take(at.workspace, TENANT)
            except RetinueError:
                continue
            await snapshots.restore(taken.snapshot_id, TENANT, folder / f"restored-{number}")
            name = folder / f"restored-{number}" / "name"
            found += "" if name.is_symlink() or not name.exists() else name.read_text()
    return _by_token(outside, found)


async def _odd_kinds(at: Cell, outside: Planted) -> Outcome:
    """setuid and setgid bits, pipes, sockets, device nodes and links that lead out, kept and restored by root."""
    await _prepare(
        at,
        "cp /bin/sh shell; chmod 6755 shell; mkfifo pipe; mkdir sticky; chmod 3777 sticky; "
        f"mknod node c 1 3 2>/dev/null; ln -s {outside.facts['secret']} link; true",
    )
    async with _store() as (snapshots, folder):
        taken = await snapshots.take(at.workspace, TENANT)
        await snapshots.restore(taken.snapshot_id, TENANT, folder / "restored", UID)
        kinds = {path.name: path.lstat() for path in (folder / "restored").rglob("*")}
    odd = [name for name, found in kinds.items() if _is_odd(found)]
    return Outcome("open" if odd or "shell" not in kinds else "stopped", f"{sorted(kinds)} {odd}")


def _is_odd(found: os.stat_result) -> bool:
    plain = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    links = stat.S_ISLNK(found.st_mode)
    stranger = found.st_uid != (os.geteuid() if UID is None else UID)
    return stat.S_IFMT(found.st_mode) not in plain or (not links and bool(found.st_mode & 0o6000)) or stranger


async def _overlap(at: Cell, outside: Planted) -> Outcome:
    """A snapshot that is restored over links which wait for it writes nothing behind them: its folder is new."""
    await _prepare(at, "mkdir -p name; echo mine > name/made")
    async with _store() as (snapshots, folder):
        taken = await snapshots.take(at.workspace, TENANT)
        into = folder / "restored"
        into.symlink_to(outside.folder)
        try:
            await snapshots.restore(taken.snapshot_id, TENANT, into)
            said = "restored"
        except SandboxRefused as error:
            said = str(error)
    names = [path.name for path in outside.folder.rglob("*") if path.name in ("made", "name")]
    return Outcome("open" if names else "stopped", said[:100])


async def _removal(at: Cell, outside: Planted) -> Outcome:
    await _prepare(at, f"mkdir deep; ln -s {outside.folder} deep/out; ln -s {outside.facts['secret']} link")
    await asyncio.to_thread(remove_tree, at.workspace)
    there = "secret" in os.listdir(outside.folder)
    return Outcome("stopped" if there and not at.workspace.exists() else "open")


async def _later_mounts(at: Cell, outside: Planted) -> Outcome:
    """Links at every name where a mount point or a file might be made: the next exec follows none (CVE-2026-87766)."""
    names = "tmp dev proc run etc usr workspace .cache proxy proxy.sock run/retinue dev/shm"
    links = "; ".join(f"mkdir -p $(dirname {name}); ln -sfn {outside.folder}/made {name}" for name in names.split())
    await _prepare(at, f"{links}; true")
    await at.run("sh", "-c", "echo x > .cache; echo x > tmp; true")
    return _by_change(outside, [""])


async def _folder(at: Cell, outside: Planted) -> Outcome:
    """A working folder that has become a link out of the workspace."""
    await _prepare(at, f"ln -s {outside.folder} out")
    try:
        done = await at.run("cat", "secret", cwd="out")
    except RetinueError as error:
        return Outcome("stopped", str(error)[:100])
    return _by_token(outside, done.stdout + done.stderr)


ATTEMPTS: dict[str, Callable[[Cell, Planted], Awaitable[Outcome]]] = {
    "have the host read through a link": _read_link,
    "have the host write through a link": _write_link,
    "have the host list through a link": _list_link,
    "have the host wait for a pipe": _hang,
    "swap a folder for a link while the host reads": _read_race,
    "swap a folder for a link while the host writes": _write_race,
    "swap a folder for a link while the host lists": _list_race,
    "swap a file for a link while a snapshot is taken": _snapshot_race,
    "have setuid bits, pipes and nodes restored": _odd_kinds,
    "have a snapshot restored through a link": _overlap,
    "have the host remove what a link leads to": _removal,
    "plant links for the mounts of the next exec": _later_mounts,
    "run in a folder that became a link": _folder,
}


async def attempts_on_the_host(name: str) -> dict[str, Outcome]:
    """All of them with workspaces of a confinement."""
    found = {}
    for attempt, act in ATTEMPTS.items():
        with cell(name) as at, planted(at.workspace, processes=False) as outside:
            outside.look()
            found[attempt] = await act(at, outside)
    return found
