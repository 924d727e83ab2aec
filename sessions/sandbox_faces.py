"""The tools of an agent's sandbox: the operations as a model sees them, with little to choose and all it must know.

Owns their names, descriptions and caps. Knows no backend, and not which sandbox is reached.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retinue.runs.sandboxes import Exec, ExecResult, FileContent, FileEntry, Reach
from retinue.sessions.sandbox_operations import MEGABYTE, Asked, Folder, Path, Plain, Timeout, box_of

_SHOWN = 32 * 1024
"""Bytes of each stream, and of a file, that a model is shown."""


class Shell(Asked):
    """Run a command line with `sh -c` in your workspace and wait for its end.

    Returns exit_code, stdout and stderr; a command that fails is a result, not an error. Files stay for the next call,
    processes and variables do not. There is no terminal and nobody to answer a prompt. Long output keeps its beginning
    and its end: write it to a file and read the part you need.
    """

    name_ = "shell"
    result = ExecResult
    command: Annotated[Plain, Field(min_length=1, description="what to run, such as: pytest -q | tail")]
    timeout: Timeout = 60.0
    cwd: Folder = "."

    async def make(self, reach: Reach) -> ExecResult:
        """See Asked."""
        order = Exec(argv=("sh", "-c", self.command), cwd=self.cwd, timeout=self.timeout, max_output=_SHOWN)
        return await box_of(reach).exec(order, reach.watch)


class Python(Asked):
    """Run a Python 3 program in your workspace and wait for its end.

    Print what you want to see. Returns exit_code, stdout and stderr. Each call is a new process: keep what you need
    later in files.
    """

    name_ = "python"
    result = ExecResult
    code: Annotated[str, Field(min_length=1, max_length=1_000_000, description="the whole program")]
    timeout: Timeout = 60.0
    cwd: Folder = "."

    async def make(self, reach: Reach) -> ExecResult:
        """See Asked."""
        order = Exec(argv=("python3", "-"), stdin=self.code, cwd=self.cwd, timeout=self.timeout, max_output=_SHOWN)
        return await box_of(reach).exec(order, reach.watch)


class ReadFile(Asked):
    """Read a file of your workspace: its text, or base64 in `data` where it is none.

    `cut` says that there is more: go on with `next_offset` as `offset`. Offset and limit count bytes.
    """

    name_ = "read_file"
    effect = "read"
    result = FileContent
    path: Path
    offset: Annotated[int, Field(ge=0, description="byte to begin at")] = 0
    limit: Annotated[int, Field(gt=0, le=256 * 1024, description="bytes to read at most")] = _SHOWN

    async def make(self, reach: Reach) -> FileContent:
        """See Asked."""
        return await box_of(reach).read(self.path, self.offset, self.limit)


class WriteFile(Asked):
    """Write a whole text file in your workspace, made with its folders or replaced.

    To change a part of a file, use edit_file.
    """

    name_ = "write_file"
    result = FileEntry
    path: Path
    content: Annotated[str, Field(max_length=4 * MEGABYTE, description="the whole text")]
    executable: Annotated[bool, Field(description="make it a program")] = False

    async def make(self, reach: Reach) -> FileEntry:
        """See Asked."""
        return await box_of(reach).write(self.path, self.content.encode("utf-8", "replace"), self.executable)


class EditFile(Asked):
    """Replace a text in a file of your workspace.

    `old` must stand there exactly, spaces and line ends included, and exactly `count` times: give enough around it to
    make it unique. Nothing is changed otherwise.
    """

    name_ = "edit_file"
    result = FileEntry
    path: Path
    old: Annotated[str, Field(min_length=1, description="the text as it is")]
    new: Annotated[str, Field(description="the text as it is to be")]
    count: Annotated[int, Field(gt=0, description="how often it stands there")] = 1

    async def make(self, reach: Reach) -> FileEntry:
        """See Asked."""
        return await box_of(reach).edit(self.path, self.old, self.new, self.count)


class ListFiles(Asked):
    """List the names in a folder of your workspace, with kind and size; `depth` levels deep."""

    name_ = "list_files"
    effect = "read"
    result = list[FileEntry]
    most = 256 * 1024
    path: Path = "."
    depth: Annotated[int, Field(gt=0, le=16, description="levels of folders to list")] = 1

    async def make(self, reach: Reach) -> list[FileEntry]:
        """See Asked."""
        return list(await box_of(reach).list(self.path, self.depth, 1_000))


FACES: tuple[type[Asked], ...] = (Shell, Python, ReadFile, WriteFile, EditFile, ListFiles)
