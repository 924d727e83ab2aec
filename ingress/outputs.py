"""The files of a batch: partial rows as they finish, then all of them in input order, and the dead letters.

Owns their safety: told before any run starts when they cannot be written, flushed row by row, replaced whole.
Knows no run.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import IO

from retinue.ingress.terminal import as_line
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput, StoreFull


def check_output(output: Path, input: Path | None) -> Path:
    """The output as an absolute path, proven writable; `input` is None when that is no local file. InvalidInput names
    the path and the remedy."""
    output = Path(os.path.abspath(output.expanduser()))
    if output.is_dir():
        raise InvalidInput(f"output {output} is a folder: name a file in it")
    if input is not None and output.exists() and os.path.samefile(output, input):
        raise InvalidInput(f"output {output} is the input: name another file")
    if not output.parent.is_dir():
        raise InvalidInput(f"output {output}: there is no folder {output.parent}; make it or name another")
    try:
        # A file beside it proves the folder (it is replaced whole), opening it the file itself.
        with tempfile.TemporaryFile(dir=output.parent) as probe:
            probe.write(b"\n")
        if output.exists():
            output.open("ab").close()
    except OSError as error:
        raise InvalidInput(f"output {output} cannot be written: {error.strerror}; name another file") from None
    return output


def dead_letters_of(output: Path) -> Path:
    """Where rows go that could not become a run."""
    return output.with_name(output.name + ".dead.jsonl")


class PartialRows:
    """The output file while the job runs: one line a finished row, flushed."""

    def __init__(self, output: Path) -> None:
        self._path = output
        self._file = output.open("w", encoding="utf-8", newline="\n")
        self.written = 0

    def add(self, rows: Iterable[dict[str, Json]]) -> None:
        """Append rows. StoreFull when the disk is."""
        try:
            for row in rows:
                self._file.write(as_line(row) + "\n")
                self.written += 1
            self._file.flush()
        except OSError as error:
            raise _failed(self._path, error) from error

    def close(self) -> None:
        """Let the file go; what could not be flushed was told by `add`."""
        try:
            self._file.close()
        except OSError as error:
            raise _failed(self._path, error) from error


async def replace_with(output: Path, rows: AsyncIterator[dict[str, Json]]) -> int:
    """Put all rows in place of the file, at once or not at all; returns how many. StoreFull when the disk is."""
    count = 0
    temporary = _temporary(output)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            async for row in rows:
                file.write(as_line(row) + "\n")
                count += 1
            _sync(file)
        os.replace(temporary, output)
    except OSError as error:
        raise _failed(output, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write a file at once or not at all. StoreFull when the disk is full."""
    temporary = _temporary(path)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            _sync(file)
        os.replace(temporary, path)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sync(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _failed(path: Path, error: OSError) -> StoreFull | InvalidInput:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(f"{path}: the disk is full; no finished row is lost: free space, then --resume")
    return InvalidInput(f"{path} cannot be written: {error.strerror or error}; correct it, then --resume")
