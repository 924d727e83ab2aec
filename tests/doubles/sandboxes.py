"""Sandboxes that are plain folders: a second implementation of the ports, that isolates nothing and copies everything.

A workspace stands on a node below `work/<sandbox id>/tree`, with a note beside it that says which generation it holds
and what is going on in it; snapshots are copies that all nodes reach, named by what they hold. Programs are real
processes. A test may hold an operation still `before` or `after` it is done, to let its owner die there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

from retinue.host.clock import now_ns
from retinue.runs.errors import TransientError, UnknownName
from retinue.runs.sandboxes import (
    UNWATCHED,
    Exec,
    ExecResult,
    FileContent,
    FileEntry,
    ManifestInfo,
    SandboxLost,
    SandboxOrder,
    SandboxOwner,
    SandboxRefused,
    SandboxState,
    SandboxStatus,
    Watch,
)

CODER = ManifestInfo(
    name="coder", version="m1", profile="strict", profile_digest="p1", reviewed_by="ben", network="none"
)
BUILDER = ManifestInfo(
    name="builder",
    version="m2",
    profile="build",
    profile_digest="p2",
    hosts=("pypi.example",),
    network="listed",
    replayable=False,
)


@dataclass
class Nodes:
    """What all nodes of a test share: the folder of snapshots, what was done, where operations are held still.

    `done` has (node, operation, detail) of all that reached a workspace, `begun` the programs that were started. `hold`
    names moments such as `after exec`, the first `skips` of which are let pass; after `refuse_after` snapshots no
    more are taken; `looks` are the threads in which manifests were looked up; `break_once` names an operation that
    breaks half way, the first time, with `break_code`."""

    folder: Path
    manifests: dict[str, ManifestInfo] = field(default_factory=lambda: {one.name: one for one in (CODER, BUILDER)})
    seeds: dict[str, dict[str, str]] = field(default_factory=dict)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    hold: set[str] = field(default_factory=set)
    skips: int = 0
    held: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    released: list[tuple[str, str, bool]] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    refuse_after: int | None = None
    break_once: str = ""
    break_code: str = "backend"
    now: Callable[[], int] = now_ns

    def node(self, name: str) -> FolderSandboxes:
        """The sandboxes of a process on a node."""
        return FolderSandboxes(self, name)

    def operations(self) -> list[str]:
        """What was done, without where."""
        return [f"{operation} {detail}".strip() for _, operation, detail in self.done]

    async def moment(self, which: str, detail: str = "") -> None:
        """Stand still here for ever, when a test wants it: at this moment, or at that of one operation."""
        for wanted in (which, f"{which} {detail}"):
            if wanted in self.hold and self.skips > 0:
                self.skips -= 1
            elif wanted in self.hold:
                self.held.append(wanted)
                await asyncio.Event().wait()

    @property
    def shelf(self) -> Path:
        """Where snapshots are."""
        return self.folder / "snapshots"


class FolderBox:
    """Implements `Box`."""

    def __init__(self, nodes: Nodes, node: str, folder: Path, state: SandboxState) -> None:
        self.state = state
        self.tree = folder / "tree"
        self._folder = folder
        self._nodes = nodes
        self._node = node
        self._turn = asyncio.Lock()

    async def exec(self, order: Exec, watch: Watch = UNWATCHED) -> ExecResult:
        """See Box."""
        async with self._changing("exec", " ".join(order.argv)):
            return await self._run(order, watch)

    async def read(self, path: str, offset: int = 0, limit: int = 256 * 1024) -> FileContent:
        """See Box."""
        content = self._file(path).read_bytes()
        part = content[offset : offset + limit]
        end = offset + len(part)
        cut = end < len(content)
        text = part.decode()
        return FileContent(
            path=path, size=len(content), text=text, offset=offset, cut=cut, next_offset=end if cut else None
        )

    async def write(self, path: str, data: bytes, executable: bool = False) -> FileEntry:
        """See Box."""
        place = self._place(path)
        async with self._changing("write", path):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o755 if executable else 0o644)
            return self._entry(place)

    async def edit(self, path: str, old: str, new: str, count: int = 1) -> FileEntry:
        """See Box."""
        place = self._file(path)
        text = place.read_text()
        if text.count(old) != count:
            raise SandboxRefused(f"{path}: the text stands there {text.count(old)} times, not {count}", code="no_match")
        async with self._changing("edit", path):
            place.write_text(text.replace(old, new))
            return self._entry(place)

    async def list(self, path: str = ".", depth: int = 1, limit: int = 1_000) -> tuple[FileEntry, ...]:
        """See Box."""
        root = self._place(path)
        found = [each for each in root.rglob("*") if len(each.relative_to(root).parts) <= depth]
        return tuple(self._entry(each) for each in sorted(found)[:limit])

    async def snapshot(self) -> SandboxState:
        """See Box."""
        async with self._turn:
            await self._nodes.moment("before snapshot")
            taken = sum(operation == "snapshot" for _, operation, _ in self._nodes.done)
            if self._nodes.refuse_after is not None and taken >= self._nodes.refuse_after:
                raise SandboxRefused("the store of snapshots is full", code="quota")
            name = _digest(self.tree)
            if not (self._nodes.shelf / name).exists():
                half = self._nodes.shelf / f"{name}.{os.getpid()}.{self.state.sandbox_id}"
                shutil.rmtree(half, ignore_errors=True)
                shutil.copytree(self.tree, half, symlinks=True)
                with suppress(OSError):  # somebody else was first
                    half.rename(self._nodes.shelf / name)
            self._nodes.done.append((self._node, "snapshot", ""))
            self._settle({"head_snapshot_id": name, "head_generation": self.state.generation})
            await self._nodes.moment("after snapshot")
            return self.state

    async def adopt(self, snapshot_id: str) -> SandboxState:
        """See Box."""
        async with self._changing("adopt", snapshot_id):
            shutil.rmtree(self.tree)
            _fill(self._nodes, snapshot_id, self.tree)
            self.state = self.state.model_copy(
                update={"head_snapshot_id": snapshot_id, "head_generation": self.state.generation + 1}
            )
        return self.state

    async def close(self) -> None:
        """See Box."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _settle(self, changes: dict[str, Any]) -> None:
        self.state = self.state.model_copy(update=changes)
        note(self._folder, self.state, "")

    @asynccontextmanager
    async def _changing(self, operation: str, detail: str) -> AsyncIterator[None]:
        async with self._turn:
            await self._nodes.moment(f"before {operation}", detail)
            note(self._folder, self.state, operation)
            yield
            if self._nodes.break_once in (f"{operation} {detail}", f"{operation} any"):
                self._nodes.break_once = ""
                raise TransientError("the backend broke", code=self._nodes.break_code)
            self._nodes.done.append((self._node, operation, detail))
            self._settle({"generation": self.state.generation + 1})
            await self._nodes.moment(f"after {operation}", detail)

    async def _run(self, order: Exec, watch: Watch) -> ExecResult:
        if order.argv[0] == "reach":
            return _reached(order, watch)
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *order.argv,
            cwd=self.tree / order.cwd,
            env={"PATH": os.environ["PATH"], **order.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._nodes.begun.append(" ".join(order.argv))
        limits: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(order.timeout):
                reading = (_follow(process.stdout, "stdout", watch), _follow(process.stderr, "stderr", watch))
                out, err, _ = await asyncio.gather(*reading, _feed(process, order))
                await process.wait()
        except TimeoutError:
            limits, out, err = ("timeout",), b"", b""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.read()  # to its end: all that wrote to it is gone
        code = process.returncode or 0
        return ExecResult(
            exit_code=code if code >= 0 and not limits else None,
            signal=-code if code < 0 else None,
            stdout=out.decode("utf-8", "replace"),
            stderr=err.decode("utf-8", "replace"),
            stdout_bytes=len(out),
            stderr_bytes=len(err),
            limits=limits,
            micros=int((time.monotonic() - started) * 1e6),
        )

    def _place(self, path: str) -> Path:
        place = (self.tree / path).resolve()
        if not place.is_relative_to(self.tree.resolve()):
            raise SandboxRefused(f"{path} is outside of the workspace", code="outside")
        return place

    def _file(self, path: str) -> Path:
        place = self._place(path)
        if not place.is_file():
            raise SandboxRefused(f"there is no file {path}", code="no_file")
        return place

    def _entry(self, place: Path) -> FileEntry:
        kind = "directory" if place.is_dir() else "file"
        name = str(place.relative_to(self.tree.resolve()))
        return FileEntry(path=name, kind=kind, size=place.stat().st_size, mode=place.stat().st_mode & 0o777)


class FolderSandboxes:
    """Implements `Sandboxes` for one process on one node."""

    def __init__(self, nodes: Nodes, node: str) -> None:
        self.nodes = nodes
        self.name = node
        nodes.shelf.mkdir(parents=True, exist_ok=True)

    def manifest(self, name: str) -> ManifestInfo:
        """See Sandboxes."""
        self.nodes.looks.append(threading.get_ident())
        if name not in self.nodes.manifests:
            near = get_close_matches(name, self.nodes.manifests) or list(self.nodes.manifests)
            raise UnknownName(f"there is no manifest {name!r}: did you mean {', '.join(near)}?")
        return self.nodes.manifests[name]

    def folder(self, sandbox_id: str) -> Path:
        """Where a sandbox is on this node."""
        return self.nodes.folder / self.name / sandbox_id

    async def create(self, order: SandboxOrder, owner: SandboxOwner) -> FolderBox:
        """See Sandboxes."""
        info = self.nodes.manifests[order.manifest]
        state = SandboxState(
            sandbox_id=order.sandbox_id,
            name=order.name,
            manifest=info.name,
            manifest_version=info.version,
            profile=info.profile,
            profile_digest=info.profile_digest,
            backend="folders",
            base_snapshot_id=order.snapshot_id,
            head_snapshot_id=order.snapshot_id,
            forked_from=order.forked_from,
            opened_at=self.nodes.now(),
        )
        await self.nodes.moment("before create")
        box = self._make(state, owner)
        await self.nodes.moment("after create")
        return box

    async def attach(self, state: SandboxState, owner: SandboxOwner) -> FolderBox | None:
        """See Sandboxes."""
        folder = self.folder(state.sandbox_id)
        if not (folder / "note.json").is_file():
            return None
        said = json.loads((folder / "note.json").read_text())
        here = SandboxState.model_validate(said["state"])
        fits = here.generation == state.generation and state.epoch <= here.epoch <= owner.epoch
        if said["operation"] or not fits:
            return None
        box = FolderBox(
            self.nodes, self.name, folder, here.model_copy(update={"epoch": owner.epoch, "node": self.name})
        )
        note(folder, box.state, "")
        return box

    async def restore(self, state: SandboxState, owner: SandboxOwner) -> FolderBox:
        """See Sandboxes."""
        self.nodes.done.append((self.name, "restore", ""))
        return self._make(state, owner)

    async def release(self, run_id: str, ended: bool) -> None:
        """See Sandboxes."""
        self.nodes.released.append((self.name, run_id, ended))

    async def close(self) -> None:
        """See Sandboxes."""

    def _make(self, state: SandboxState, owner: SandboxOwner) -> FolderBox:
        folder = self.folder(state.sandbox_id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        changes = {
            "node": self.name,
            "epoch": owner.epoch,
            "generation": state.head_generation,
            "status": SandboxStatus.open,
        }
        box = FolderBox(self.nodes, self.name, folder, state.model_copy(update=changes))
        if state.head_snapshot_id is None:
            box.tree.mkdir()
            for name, text in self.nodes.seeds.get(state.manifest, {}).items():
                (box.tree / name).write_text(text)
        else:
            _fill(self.nodes, state.head_snapshot_id, box.tree)
        note(folder, box.state, "")
        return box


def note(folder: Path, state: SandboxState, operation: str) -> None:
    """Write what is known of a workspace beside it, at once."""
    new = folder / "note.new"
    new.write_text(json.dumps({"state": state.model_dump(mode="json"), "operation": operation}))
    new.replace(folder / "note.json")


def files(tree: Path) -> dict[str, str]:
    """What a folder holds: texts by name."""
    return {str(each.relative_to(tree)): each.read_text() for each in sorted(tree.rglob("*")) if each.is_file()}


def _fill(nodes: Nodes, snapshot_id: str, tree: Path) -> None:
    if not (kept := nodes.shelf / snapshot_id).is_dir():
        raise SandboxLost(f"snapshot {snapshot_id} is gone")
    shutil.copytree(kept, tree, symlinks=True)


def _digest(tree: Path) -> str:
    hasher = sha256()
    for each in sorted(tree.rglob("*")):
        told = each.read_bytes() if each.is_file() else b""
        hasher.update(f"{each.relative_to(tree)}\0{each.is_file()}\0{len(told)}\0".encode() + told)
    return "s1-" + hasher.hexdigest()


def _reached(order: Exec, watch: Watch) -> ExecResult:
    """The program `reach HOST PORT` asks for a way out, twice."""
    host, port = order.argv[1:3]
    return ExecResult(exit_code=0, stdout=" ".join("yes" if watch.allow(host, int(port)) else "no" for _ in range(2)))


async def _follow(reader: asyncio.StreamReader | None, stream: str, watch: Watch) -> bytes:
    parts = []
    while reader is not None and (part := await reader.read(64 * 1024)):
        parts.append(part)
        watch.output(stream, part.decode("utf-8", "replace"))
    return b"".join(parts)


async def _feed(process: asyncio.subprocess.Process, order: Exec) -> None:
    if process.stdin is not None:
        process.stdin.write(order.stdin.encode())
        with suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.drain()
        process.stdin.close()
