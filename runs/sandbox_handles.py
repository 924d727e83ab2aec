"""What a function may do with sandboxes: open one and work in it. Each is a journaled step that the gate is asked of.

Owns the method of the context and the handle it gives. Nothing is touched on replay: a sandbox is brought back when a
new step needs it. Knows neither where a sandbox is nor how a step is carried out.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.runs.executor import Executor
from retinue.runs.joins import seconds
from retinue.runs.sandboxes import ExecResult, FileContent, FileEntry
from retinue.runs.values import value_of

MOST_FORKS = 256
"""New sandboxes that one run opens at once."""
_PART = 1024 * 1024
"""Bytes of a file that one step reads."""


class SandboxHandle:
    """A sandbox of the run, by its id. After a checkpoint `ctx.sandbox` with the same `name` gives it again.

    Every method raises PolicyDenied, SandboxLost when what it held cannot be brought back, SandboxRefused as
    PermanentError for what it must not do; nothing was changed then.
    """

    def __init__(self, executor: Executor, id: str, manifest: str) -> None:
        self.id = id
        self.manifest = manifest
        self._executor = executor

    def __repr__(self) -> str:
        return f"<sandbox {self.id} of {self.manifest}>"

    async def exec(
        self,
        *argv: str,
        timeout: float | str = 60.0,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        max_output: int = 256 * 1024,
        replayable: bool | None = None,
    ) -> ExecResult:
        """Run a program to its end, within `timeout` (seconds, or text such as `5m`) and the profile's limits.

        One that fails is a result with its exit code. Of each stream the beginning and the end are kept, `max_output`
        bytes. `replayable=False`: it is not run again to bring the workspace back after a crash; the default is the
        manifest's: True where it reaches no network.
        """
        if not argv or not all(isinstance(word, str) for word in argv):
            raise InvalidInput(f"exec{argv!r}: give the program and its arguments as texts")
        given = {"argv": list(argv), "cwd": cwd, "env": dict(env or {}), "stdin": stdin, "timeout": seconds(timeout)}
        given |= {"max_output": max_output, "replayable": replayable}
        return ExecResult.model_validate(await self._call("exec", given))

    async def shell(self, command: str, **options: Any) -> ExecResult:
        """Run a command line with `sh -c`; options as for `exec`."""
        return await self.exec("sh", "-c", command, **options)

    async def read(self, path: str, *, limit: int = 16 * _PART) -> str | bytes:
        """A whole file: text where it is UTF-8, else bytes. PermanentError `too_large` above `limit` bytes."""
        parts: list[bytes] = []
        offset = 0
        while True:
            part = FileContent.model_validate(
                await self._call("read", {"path": path, "offset": offset, "limit": min(_PART, limit)})
            )
            if part.size > limit:
                raise PermanentError(f"{path} has {part.size:,} bytes, more than limit={limit:,}", code="too_large")
            parts.append(_bytes_of(part))
            if not part.cut or not parts[-1]:
                return _text_or_bytes(b"".join(parts))
            offset = offset + len(parts[-1]) if part.next_offset is None else part.next_offset  # not in old journals

    async def write(self, path: str, content: str | bytes, *, executable: bool = False) -> FileEntry:
        """Write a whole file, made with its folders or replaced at once."""
        said: dict[str, Json] = {"text": content} if isinstance(content, str) else {"data": b64encode(content).decode()}
        return FileEntry.model_validate(await self._call("write", {"path": path, "executable": executable, **said}))

    async def edit(self, path: str, old: str, new: str, count: int = 1) -> FileEntry:
        """Replace a text that stands exactly `count` times in a file; refused when it does not."""
        given = {"path": path, "old": old, "new": new, "count": count}
        return FileEntry.model_validate(await self._call("edit", given))

    async def list(self, path: str = ".", depth: int = 1, limit: int = 1_000) -> tuple[FileEntry, ...]:
        """What is below a folder, sorted by path."""
        found = await self._call("list", {"path": path, "depth": depth, "limit": limit})
        return tuple(FileEntry.model_validate(each) for each in found)

    async def snapshot(self) -> str:
        """Keep what it holds; the snapshot's id, of which any run of the tenant can open a sandbox."""
        return str((await self._call("snapshot", {}))["snapshot"])

    async def fork(self, count: int) -> tuple[SandboxHandle, ...]:
        """So many new sandboxes of this run that hold what this one holds now, `MOST_FORKS` at most."""
        if not 1 <= count <= MOST_FORKS:
            raise InvalidInput(
                f"fork({count}): give 1 to {MOST_FORKS}; for more, give the snapshot to children of `ctx.map`, which "
                "runs them in a window"
            )
        snapshot = await self.snapshot()
        given = {"manifest": self.manifest, "snapshot": snapshot, "forked_from": self.id}
        return tuple(await asyncio.gather(*(open_sandbox(self._executor, given) for _ in range(count))))

    async def adopt(self, snapshot: str) -> None:
        """Make a snapshot, such as that of the best fork, what it holds."""
        await self._call("adopt", {"snapshot": snapshot})

    async def close(self) -> None:
        """Do without it from now on. What is open when the run ends is closed then."""
        await self._call("close", {})

    async def _call(self, operation: str, arguments: dict[str, Json]) -> Any:
        name = f"sandbox.{operation}"
        return value_of(await self._executor.issue("call", name, {"sandbox": self.id, **arguments}, {}))


class UsesSandboxes:
    """The part of a context that has to do with sandboxes."""

    _executor: Executor

    async def sandbox(self, manifest: str, snapshot: str | None = None, *, name: str | None = None) -> SandboxHandle:
        """Open a sandbox of the project's manifest of this name, holding what that makes or what the `snapshot` holds.

        With a `name` it is the run's one of that name: opened at first, the same one after a checkpoint. The gate's
        stage `sandbox` decides: PolicyDenied when it says no. PermanentError for a manifest that is not there, and
        (SandboxRefused) for a profile that cannot be enforced here.
        """
        return await open_sandbox(self._executor, {"manifest": manifest, "snapshot": snapshot, "name": name})


async def open_sandbox(executor: Executor, arguments: dict[str, Json]) -> SandboxHandle:
    """Open a sandbox as one step."""
    value = value_of(await executor.issue("call", "sandbox.open", arguments, {}))
    return SandboxHandle(executor, str(value["sandbox"]), str(value["manifest"]))


def _bytes_of(part: FileContent) -> bytes:
    return part.text.encode() if part.text is not None else b64decode(part.data or "")


def _text_or_bytes(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
