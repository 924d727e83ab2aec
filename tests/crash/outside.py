"""The world outside of everything: a log of what was really done, synced line by line, that survives any kill.

`filed` is an effect of a write, `ran` a read or a function that was executed, `tried` a failed try, `asked` a model
call that was answered and what it cost. Knows no journal; a process says once in which folder and which life it is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

LOG = "outside.jsonl"


class Line(NamedTuple):
    """One thing that happened: in which life, what, under which key, to which name, with which text, at what price."""

    life: int
    what: str
    key: str
    name: str
    text: str
    micros: int = 0


class Outside:
    """The outside as one process sees it. `disk_full` makes the store's commits fail while it is set, `deaf` loses the
    answer to the next lease that gives something."""

    def __init__(self) -> None:
        self.folder = Path()
        self.life = 0
        self.disk_full = False
        self.deaf = False
        self.client: Any = None

    def enter(self, folder: Path, life: int) -> None:
        """This process works on that project, in its first or second life."""
        self.folder, self.life = folder, life

    def say(self, what: str, key: str, name: str, text: str = "", micros: int = 0) -> None:
        """Add a line; it is on disk when this returns."""
        handle = os.open(self.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, (json.dumps(Line(self.life, what, key, name, text, micros)) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def has(self, what: str, key: str) -> Line | None:
        """The first such line, if there is one."""
        return next((line for line in read(self.folder) if line.what == what and line.key == key), None)


def read(folder: Path) -> list[Line]:
    """The log of a project."""
    path = folder / LOG
    return [Line(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


OUTSIDE = Outside()
"""The outside of this process: what the project's tools reach without being told."""
