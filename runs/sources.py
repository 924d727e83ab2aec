"""Where the inputs of a fan-out come from when they are more than memory should hold, and where its rows go.

A source is data (it is journaled); who reads it is the host's. Reading is by cursor, so that a crash goes on
where the last window of children was created.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from retinue.runs.contracts import Frozen, Json
from retinue.runs.ownership import DeadLetter


class Source(Frozen):
    """Rows of a file: JSONL, CSV or Parquet. `id_field` names the row's id, `limit` stops after that many rows.

    `path` is a local one, or a URL such as `s3://bucket/in/a.parquet`.

    `fingerprint` is the file's size and first bytes, hashed when the job was accepted: a changed file is refused.
    """

    path: str
    format: str
    id_field: str = "id"
    limit: int | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One input with its id, if it has one."""

    value: Json
    input_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some inputs, what could not become one, the cursor behind them, and whether that was the end."""

    items: tuple[Item, ...]
    rejected: tuple[DeadLetter, ...]
    cursor: Json
    exhausted: bool


class SourceReader(Protocol):
    """Reads pages of a source. May block: it is called in a thread."""

    def read(self, source: Source, cursor: Json, limit: int) -> Page:
        """Up to `limit` items from the cursor on (None: the beginning). InvalidInput when the file changed."""
        ...


class PartWriter(Protocol):
    """Writes the ended children of a group as a file."""

    async def write(self, run_id: str, key: str, into: str) -> dict[str, int]:
        """Write the group `key` of a run to the URL `into`, whole; returns {written, rejected}. Repeatable.

        StoreUnreachable when the place does not answer, PermanentError when it cannot be written.
        """
        ...
