"""Files of rows: what the shards of a job leave behind, one file each, put in its place whole.

Implements `runs.sources.PartWriter`. A part is made beside first, row by row, then uploaded: repeated after a crash it
is the same file again. Knows no run but its rows.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from retinue.host.answers import row_of
from retinue.runs.contracts import Json
from retinue.runs.control import JobRow
from retinue.runs.errors import InvalidInput, PermanentError, StoreFull
from retinue.runs.ownership import DeadLetter
from retinue.store.objects import Objects, split_url
from retinue.store.places import open_objects

DEAD = ".dead.jsonl"
"""Behind a part's name: the inputs that could not become a run."""
_PAGE = 500
_MOST_DEAD = 1_000_000


class Rows(Protocol):
    """What is read of the store."""

    async def rows(self, run_id: str, key: str, after: int, limit: int, ordered: bool) -> list[JobRow]: ...

    async def dead_letters(self, parent_run_id: str | None = None, limit: int = 1_000) -> list[DeadLetter]: ...


class StoredParts:
    """Writes parts of what a store holds. Memory is bounded by a page of rows."""

    def __init__(self, store: Rows) -> None:
        self._store = store

    async def write(self, run_id: str, key: str, into: str) -> dict[str, int]:
        """See PartWriter."""
        try:
            place, path = split_url(into)
            objects = await asyncio.to_thread(open_objects, place)
            with tempfile.TemporaryDirectory(prefix="retinue-part-") as folder:
                draft = Path(folder) / "part"
                written = await self._make(draft, (run_id, key), into)
                rejected = await self._put_dead(objects, path, run_id)
                await asyncio.to_thread(objects.upload, path, draft)
        except (InvalidInput, OSError, StoreFull) as error:
            raise PermanentError(f"the rows of {run_id} cannot be written to {into}: {error}", code="output") from None
        return {"written": written, "rejected": rejected}

    async def _make(self, draft: Path, group: tuple[str, str], into: str) -> int:
        form = _Table(draft) if into.endswith(".parquet") else _Lines(draft)
        written, after = 0, -1
        try:
            while page := await self._store.rows(*group, after, _PAGE, True):
                await asyncio.to_thread(form.add, [row_of(row) for row in page])
                written, after = written + len(page), page[-1].branch.index
        finally:
            await asyncio.to_thread(form.close)
        return written

    async def _put_dead(self, objects: Objects, path: str, run_id: str) -> int:
        """The refused inputs beside the part; nothing when there are none, and nothing of an earlier job."""
        letters = await self._store.dead_letters(run_id, _MOST_DEAD)
        lines = [_line({"line": one.line, "reason": one.reason, "message": one.message}) for one in letters]
        if letters:
            await asyncio.to_thread(objects.put, path + DEAD, "".join(lines).encode())
        elif await asyncio.to_thread(objects.head, path + DEAD):
            await asyncio.to_thread(objects.delete, path + DEAD)
        return len(letters)


class _Lines:
    """JSONL."""

    def __init__(self, draft: Path) -> None:
        self._file: IO[str] = draft.open("w", encoding="utf-8", newline="\n")

    def add(self, rows: Sequence[dict[str, Json]]) -> None:
        """Append rows."""
        self._file.writelines(map(_line, rows))

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


class _Table:
    """Parquet: a column for each field. What may be any JSON is text: a string as it is, anything else as JSON."""

    def __init__(self, draft: Path) -> None:
        import pyarrow  # noqa: PLC0415 - only Parquet parts should cost the time
        import pyarrow.parquet  # noqa: PLC0415

        texts = ("id", "answer", "citations", "status", "stop_reason", "run_id", "details", "error")
        numbers = ("confidence", "cost_usd")
        fields = [*((name, pyarrow.string()) for name in texts), *((name, pyarrow.float64()) for name in numbers)]
        self._schema = pyarrow.schema(fields)
        self._batch = pyarrow.RecordBatch
        self._file = pyarrow.parquet.ParquetWriter(draft, self._schema)
        self._texts = frozenset(texts)

    def add(self, rows: Sequence[dict[str, Json]]) -> None:
        """Append rows as a row group."""
        flat = [{name: self._flat(name, row.get(name)) for name in self._schema.names} for row in rows]
        self._file.write_batch(self._batch.from_pylist(flat, schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._file.close()

    def _flat(self, name: str, value: Json) -> Any:
        if value is None or name not in self._texts:
            return value
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text.encode(errors="replace").decode()


def _line(value: Json) -> str:
    """One line of JSON; what has lone surrogates is kept escaped, since UTF-8 has none."""
    text = json.dumps(value, ensure_ascii=False)
    return (text if _is_text(text) else json.dumps(value)) + "\n"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
