"""Sandboxes as a run sees them: workspaces with a generation, their state as a record, and the ports to them.

Owns the nouns that the journal, the store and the room `sandbox` share. Knows no backend, no file system and no format
of snapshots.

A sandbox belongs to a run. Its workspace is a folder of some node and a cache; the journal says which generation of it
the run has seen, and snapshots say what older generations held. Every operation that may change the workspace makes
the next generation. A run that comes back continues with the workspace of the very generation its journal has, or has
it made again: the newest snapshot, and from there the operations that the journal holds, if all are replayable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from retinue.runs.contracts import Frozen
from retinue.runs.errors import PermanentError

Network = Literal["none", "listed", "host"]
"""What a sandbox reaches: nothing, the hosts that its profile lists, or what the host reaches."""

Assurance = Literal["enforced", "limited", "absent"]
"""How well a backend holds one demand of a profile here: always, up to a stated gap, or not at all."""


AGENT_TOOLS = ("shell", "python", "read_file", "write_file", "edit_file", "list_files")
"""The tools that an agent with a sandbox is given."""


class SandboxStatus(StrEnum):
    """Where a sandbox stands: it has a workspace or can have one, cannot be brought back, or is done with."""

    open = "open"
    lost = "lost"
    closed = "closed"


SANDBOX_LOST = "sandbox_lost"


class SandboxLost(PermanentError):
    """The workspace of the generation that the run has seen is gone and cannot be made again (code `sandbox_lost`)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=SANDBOX_LOST)


class SandboxRefused(PermanentError):
    """A sandbox was asked for something that it must not or cannot do: a path outside the workspace, a file that is
    too large, a quota, a demand of the profile that cannot be met here. `code` says which; nothing was changed.
    """


class ManifestInfo(Frozen):
    """What is known of a manifest before anything of it is made. `version` is the digest of all it says and of the
    files it takes in, `revision` the number its author gave; `reviewed_by` is empty while nobody has pinned this
    version. `hosts` are those it may reach where its `network` is `listed`, `replayable` says whether an exec may be
    repeated where it does not say.
    """

    name: str
    version: str
    revision: int = 1
    profile: str
    profile_digest: str
    reviewed_by: str = ""
    hosts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    confined: bool = True
    network: Network = "host"
    replayable: bool = True


class SandboxState(Frozen):
    """A sandbox as its record has it (E2). All of it is plain: no content of a workspace, no value of a secret.

    `sandbox_id` is also the name of the workspace's folder. `name` is that within the run. `generation` counts the
    changes of the workspace from 0, which is what the manifest or the base snapshot made; the head snapshot holds
    generation `head_generation`. `entries` and `bytes` are those of the newest snapshot or materialization. `node` and
    `epoch` say who had the workspace last: an older epoch must not change it. `confinement` is what the backend
    achieved, by demand. `omitted` are the first paths that a snapshot leaves out, and why. Times are Unix ns.
    """

    sandbox_id: str
    name: str
    manifest: str
    manifest_version: str
    profile: str
    profile_digest: str
    backend: str = ""
    confinement: dict[str, Assurance] = Field(default_factory=dict)
    status: SandboxStatus = SandboxStatus.open
    cause: str = ""
    base_snapshot_id: str | None = None
    head_snapshot_id: str | None = None
    head_generation: int = 0
    generation: int = 0
    entries: int = 0
    bytes: int = 0
    tier: str = ""
    node: str = ""
    epoch: int = 0
    can_resume: bool = True
    can_snapshot: bool = True
    must_recreate: bool = False
    omitted: tuple[str, ...] = ()
    forked_from: str | None = None
    opened_at: int = 0
    changed_at: int = 0
    closed_at: int | None = None


@dataclass(frozen=True, slots=True)
class SandboxOwner:
    """On whose behalf a sandbox is used. `epoch` is the fencing token of the run's owner."""

    tenant_id: str
    run_id: str
    root_run_id: str
    trace_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class SandboxOrder:
    """A sandbox to be made: from a manifest, or from a snapshot under the manifest's profile and limits."""

    sandbox_id: str
    name: str
    manifest: str
    snapshot_id: str | None = None
    forked_from: str | None = None


class Exec(Frozen):
    """A program to run in a workspace. `cwd` is relative to it. `env` adds plain variables; those of the manifest and
    its secrets come besides. `timeout` is in seconds, `max_output` the bytes that are kept of each stream: its
    beginning and its end.
    """

    argv: tuple[str, ...]
    cwd: str = "."
    env: dict[str, str] = Field(default_factory=dict)
    stdin: str = ""
    timeout: float = Field(default=60.0, gt=0)
    max_output: int = Field(default=256 * 1024, gt=0)


class ExecResult(Frozen):
    """How a program ended: `exit_code`, or the number of the signal that ended it. Streams are UTF-8 with what is none
    replaced; `*_bytes` is all that was written to them. `limits` names what was hit, such as `timeout`, `memory`,
    `processes`, `disk`. `micros` is wall time.
    """

    exit_code: int | None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    limits: tuple[str, ...] = ()
    micros: int = 0

    @property
    def ok(self) -> bool:
        """True when it ended by itself with 0."""
        return self.exit_code == 0


class FileContent(Frozen):
    """A part of a regular file: text where it is UTF-8, else base64 in `data`. `size` is that of the whole file; where
    the part is `cut`, the rest of it begins at `next_offset`, which the length of what is shown does not tell."""

    path: str
    size: int
    text: str | None = None
    data: str | None = None
    offset: int = 0
    cut: bool = False
    next_offset: int | None = None


class FileEntry(Frozen):
    """A name in a workspace; `path` is relative to it, `size` in bytes, `mode` the permission bits."""

    path: str
    kind: Literal["file", "directory", "symlink", "other"]
    size: int = 0
    mode: int = 0
    target: str | None = None


def _nothing(stream: str, text: str) -> None:
    """Output that nobody watches."""


def _no_host(host: str, port: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Watch:
    """What an exec tells while it runs, and asks. `output` gets (stream, text) as it comes and must not block; `allow`
    says whether it may reach a host (name, port) of its profile's list: the gate's stage `egress`.
    """

    output: Callable[[str, str], None] = _nothing
    allow: Callable[[str, int], bool] = _no_host


UNWATCHED = Watch()


class Opening(Frozen):
    """A sandbox that a run asks for: of a manifest, or a snapshot under it. A run has one open sandbox of a `name`."""

    manifest: str
    snapshot: str | None = None
    name: str | None = None
    forked_from: str | None = None


class Box(Protocol):
    """A live sandbox in this process. Its operations are one at a time; each raises SandboxRefused for what it must
    not do, TransientError or PermanentError for what failed, and nothing else but cancellation. What changes the
    workspace has raised `state.generation` by one when it returns, and has left the workspace unclean when it does
    not return.
    """

    @property
    def state(self) -> SandboxState:
        """As of the newest operation."""
        ...

    async def exec(self, order: Exec, watch: Watch = UNWATCHED) -> ExecResult:
        """Run a program to its end; all of its processes are gone when this returns or is canceled."""
        ...

    async def read(self, path: str, offset: int = 0, limit: int = 256 * 1024) -> FileContent:
        """A part of a regular file, in bytes."""
        ...

    async def write(self, path: str, data: bytes, executable: bool = False) -> FileEntry:
        """A whole file, made with its directories or replaced at once."""
        ...

    async def edit(self, path: str, old: str, new: str, count: int = 1) -> FileEntry:
        """Replace exactly `count` occurrences of a text; refused when there are more or fewer."""
        ...

    async def list(self, path: str = ".", depth: int = 1, limit: int = 1_000) -> tuple[FileEntry, ...]:
        """What is below a directory, sorted by path."""
        ...

    async def snapshot(self) -> SandboxState:
        """Keep the workspace as it is; durable when it returns. The state names it as the head."""
        ...

    async def adopt(self, snapshot_id: str) -> SandboxState:
        """Make a snapshot, such as the best fork's, the workspace and the head."""
        ...

    async def close(self) -> None:
        """End its processes and remove the workspace. Snapshots stay as their leases say."""
        ...


class Sandboxes(Protocol):
    """The room of sandboxes, as a run and its host use it. One object a process; safe for many runs of it."""

    def manifest(self, name: str) -> ManifestInfo:
        """What a name stands for; UnknownName with close matches, ConfigError for a manifest that cannot be used."""
        ...

    async def create(self, order: SandboxOrder, owner: SandboxOwner) -> Box:
        """A new workspace. SandboxRefused when its profile cannot be enforced here: it names what is missing.

        What an owner that died has left of a sandbox of this id is replaced."""
        ...

    async def attach(self, state: SandboxState, owner: SandboxOwner) -> Box | None:
        """The workspace of this very generation, where this node has it and no operation was cut off in it. One of an
        older epoch than the state's is not it: an owner that was overtaken has counted its own generations."""
        ...

    async def restore(self, state: SandboxState, owner: SandboxOwner) -> Box:
        """The workspace of the head snapshot, or of the manifest when there is none, under a new epoch; its state has
        the generation of that. SandboxLost when it cannot be had or is not what was kept."""
        ...

    async def release(self, run_id: str, ended: bool) -> None:
        """This process executes a run no longer: end its processes; remove its workspaces when it has ended."""
        ...

    async def close(self) -> None:
        """End all processes of all sandboxes. Bounded; raises nothing."""
        ...


@runtime_checkable
class Reach(Protocol):
    """How a capability of source `sandbox` reaches the sandbox that its call is about; given to it as its link."""

    @property
    def box(self) -> Box | None:
        """The sandbox, in the generation that the run has seen; None for a call that opens one."""
        ...

    @property
    def watch(self) -> Watch:
        """What an exec tells and asks."""
        ...

    async def open(self, opening: Opening) -> SandboxState:
        """A new sandbox of the run, or the open one of that name, with the id that steps know it by."""
        ...

    async def close(self) -> None:
        """The run needs the sandbox no longer."""
        ...


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """What the store keeps of a sandbox beside the journal. `place` is the id that steps know it by, when it is not its
    own: in a fork of a run that of the original's."""

    state: SandboxState
    trace_id: str
    place: str = ""
