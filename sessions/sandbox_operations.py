"""What a run can ask of a sandbox, as validated data that makes itself.

Owns the operations of workflows, with their arguments and caps. Knows no backend, and not which sandbox is reached.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from retinue.runs.capabilities import SideEffect
from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import Box, Exec, ExecResult, FileContent, FileEntry, Opening, Reach, SandboxState

SECONDS = 120.0
"""What a change of files, and a look at them, may take."""
_LONG = 1_800.0
"""What making, keeping or adopting a workspace may take."""
MEGABYTE = 1024 * 1024

MOST_OF_ONE = 120_000
"""Bytes of one argument of a program: what the kernel takes, less its share."""


def _plain(text: str) -> str:
    """A text that can be a part of a command."""
    if "\0" in text:
        raise ValueError("it has a NUL character: a path, an argument and a variable cannot")
    if len(text) * 4 > MOST_OF_ONE and len(text.encode("utf-8", "replace")) > MOST_OF_ONE:
        raise ValueError(f"it has more than {MOST_OF_ONE:,} bytes: write it to a file, and give that or its path")
    return text


_PATH = Field(min_length=1, max_length=4_096, description="path in the workspace, such as src/app.py")
_FOLDER = Field(min_length=1, max_length=4_096, description="folder in the workspace to run in")

Plain = Annotated[str, AfterValidator(_plain)]
Path = Annotated[str, _PATH, AfterValidator(_plain)]
Timeout = Annotated[float, Field(gt=0, le=86_400, description="seconds after which it is ended")]
Folder = Annotated[str, _FOLDER, AfterValidator(_plain)]
Command = Annotated[
    str, Field(min_length=1, description="what to run, such as: pytest -q | tail"), AfterValidator(_plain)
]
Id = Annotated[str, Field(min_length=1, max_length=64)]


class Asked(BaseModel):
    """Arguments that make what they ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    name_: ClassVar[str]
    effect: ClassVar[SideEffect] = "draft"
    seconds: ClassVar[float] = SECONDS
    most: ClassVar[int] = 4 * MEGABYTE
    result: ClassVar[Any]

    async def make(self, reach: Reach) -> object:
        """Do it in the sandbox that is reached."""
        raise NotImplementedError


class Opened(BaseModel):
    """A sandbox as its run knows it."""

    sandbox: str
    name: str
    manifest: str
    profile: str
    backend: str
    snapshot: str | None


class HeadSnapshot(BaseModel):
    """The snapshot that a sandbox stands on: its id, how many entries and bytes it holds, what it leaves out."""

    snapshot: str
    entries: int
    bytes: int
    omitted: tuple[str, ...]


class Open(Asked):
    """Open a sandbox of a manifest, or of a snapshot under it; the one that is open under this name, if there is."""

    name_ = "sandbox.open"
    seconds = _LONG
    result = Opened
    manifest: Id
    snapshot: str | None = None
    name: Id | None = None
    forked_from: Id | None = None

    async def make(self, reach: Reach) -> Opened:
        """See Asked."""
        state = await reach.open(Opening(**self.model_dump()))
        return Opened(
            sandbox=state.sandbox_id,
            name=state.name,
            manifest=state.manifest,
            profile=state.profile,
            backend=state.backend,
            snapshot=state.head_snapshot_id,
        )


class Execute(Asked):
    """Run a program in a sandbox to its end. `replayable` says whether it may be run again after a crash."""

    name_ = "sandbox.exec"
    result = ExecResult
    sandbox: Id
    argv: Annotated[list[Plain], Field(min_length=1, max_length=10_000)]
    cwd: Folder = "."
    env: dict[Plain, Plain] = Field(default_factory=dict)
    stdin: Annotated[str, Field(max_length=16 * MEGABYTE)] = ""
    timeout: Timeout = 60.0
    max_output: Annotated[int, Field(gt=0, le=MEGABYTE)] = 256 * 1024
    replayable: bool | None = None

    async def make(self, reach: Reach) -> ExecResult:
        """See Asked."""
        told = self.model_dump(exclude={"sandbox", "replayable"})
        return await box_of(reach).exec(Exec(**told), reach.watch)


class Read(Asked):
    """A part of a file in a sandbox, in bytes."""

    name_ = "sandbox.read"
    effect = "read"
    result = FileContent
    sandbox: Id
    path: Path
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(gt=0, le=MEGABYTE)] = 256 * 1024

    async def make(self, reach: Reach) -> FileContent:
        """See Asked."""
        return await box_of(reach).read(self.path, self.offset, self.limit)


class Write(Asked):
    """Write a whole file in a sandbox: `text`, or `data` in base64."""

    name_ = "sandbox.write"
    result = FileEntry
    sandbox: Id
    path: Path
    text: Annotated[str, Field(max_length=16 * MEGABYTE)] | None = None
    data: Annotated[str, Field(max_length=24 * MEGABYTE)] | None = None
    executable: bool = False

    async def make(self, reach: Reach) -> FileEntry:
        """See Asked."""
        return await box_of(reach).write(self.path, self._bytes(), self.executable)

    def _bytes(self) -> bytes:
        if (self.text is None) == (self.data is None):
            raise PermanentError("sandbox.write: give either `text` or `data`", code="invalid_arguments")
        try:
            return self.text.encode() if self.text is not None else b64decode(self.data or "", validate=True)
        except (NotBase64, UnicodeEncodeError) as error:
            raise PermanentError(
                f"sandbox.write: the content cannot be written: {error}", code="invalid_arguments"
            ) from None


class Edit(Asked):
    """Replace exactly `count` occurrences of a text in a file of a sandbox."""

    name_ = "sandbox.edit"
    result = FileEntry
    sandbox: Id
    path: Path
    old: Annotated[str, Field(min_length=1)]
    new: str
    count: Annotated[int, Field(gt=0)] = 1

    async def make(self, reach: Reach) -> FileEntry:
        """See Asked."""
        return await box_of(reach).edit(self.path, self.old, self.new, self.count)


class ListNames(Asked):
    """What is below a folder of a sandbox."""

    name_ = "sandbox.list"
    effect = "read"
    result = list[FileEntry]
    sandbox: Id
    path: Path = "."
    depth: Annotated[int, Field(gt=0, le=64)] = 1
    limit: Annotated[int, Field(gt=0, le=10_000)] = 1_000

    async def make(self, reach: Reach) -> list[FileEntry]:
        """See Asked."""
        return list(await box_of(reach).list(self.path, self.depth, self.limit))


class Snapshot(Asked):
    """Keep what a sandbox holds."""

    name_ = "sandbox.snapshot"
    seconds = _LONG
    result = HeadSnapshot
    sandbox: Id

    async def make(self, reach: Reach) -> HeadSnapshot:
        """See Asked."""
        return _head_of(await box_of(reach).snapshot())


class Adopt(Asked):
    """Make a snapshot, such as the best fork's, what a sandbox holds."""

    name_ = "sandbox.adopt"
    seconds = _LONG
    result = HeadSnapshot
    sandbox: Id
    snapshot: Annotated[str, Field(min_length=1, max_length=200)]

    async def make(self, reach: Reach) -> HeadSnapshot:
        """See Asked."""
        return _head_of(await box_of(reach).adopt(self.snapshot))


class Close(Asked):
    """Do without a sandbox from now on: its processes end and its workspace goes."""

    name_ = "sandbox.close"
    seconds = _LONG
    result = None
    sandbox: Id

    async def make(self, reach: Reach) -> None:
        """See Asked."""
        await reach.close()


def _head_of(state: SandboxState) -> HeadSnapshot:
    return HeadSnapshot(
        snapshot=state.head_snapshot_id or "", entries=state.entries, bytes=state.bytes, omitted=state.omitted
    )


def box_of(reach: Reach) -> Box:
    """The sandbox that a call reaches. PermanentError `no_sandbox` when it reaches none."""
    if reach.box is None:
        raise PermanentError("the call reaches no sandbox", code="no_sandbox")
    return reach.box


OPERATIONS: tuple[type[Asked], ...] = (Open, Execute, Read, Write, Edit, ListNames, Snapshot, Adopt, Close)
