"""Rows of a user's file as inputs of a batch: JSONL, CSV, Parquet, read by cursor in pages.

What cannot become an input is returned as a dead letter with its line, never dropped. Blocking: hosts call it
in a thread. Knows no run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from pydantic_core import PydanticSerializationError, from_json, to_json

from retinue.host.clock import now_ns
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import DeadLetter
from retinue.runs.sources import Item, Page, Source

MOST_BYTES = 64 * 1024 * 1024
"""A longer line is a dead letter."""
MOST_LEVELS = 100
"""Lists and objects inside each other; a deeper row is a dead letter. The journal reads 200 back, wrapping included."""
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def source_of(path: Path, id_field: str = "id", limit: int | None = None) -> Source:
    """A source for a file, fingerprinted as it is now. InvalidInput when it cannot be read or has no known ending."""
    if path.suffix.lower() not in _FORMATS:
        raise InvalidInput(f"input {path}: unknown ending {path.suffix!r}; use one of {', '.join(_FORMATS)}")
    return Source(
        path=str(path.resolve()),
        format=_FORMATS[path.suffix.lower()],
        id_field=id_field,
        limit=limit,
        fingerprint=fingerprint(path),
    )


def fingerprint(path: Path) -> str:
    """Size and a hash of the first and last 64 KiB. InvalidInput when the file cannot be read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(65_536)
            file.seek(max(size - 65_536, 0))
            return f"{size}-{blake2b(head + file.read(65_536), digest_size=8).hexdigest()}"
    except OSError as error:
        raise InvalidInput(
            f"input {path} cannot be read: {error.strerror}; check the path and its permissions"
        ) from None


class RowReader:
    """Implements `runs.sources.SourceReader` for files. Tables stay open between the pages of a job."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}

    def read(self, source: Source, cursor: Json, limit: int) -> Page:
        """Up to `limit` rows from the cursor on. InvalidInput when the file is not the one that was accepted."""
        if cursor is None:
            found = fingerprint(Path(source.path))
            if source.fingerprint and found != source.fingerprint:
                raise InvalidInput(f"input {source.path} changed since the job began: submit a new job, or restore it")
            cursor = {"offset": 0, "line": 0, "rows": 0}
        if source.format == "jsonl":
            return _read_jsonl(source, cursor, limit)
        return self._table(source, int(cursor["rows"])).page(source, limit)

    def _table(self, source: Source, row: int) -> _Table:
        table = self._tables.get(source.path)
        if table is None or table.done != row:
            table = self._tables[source.path] = _Table(source)
            table.skip_to(row)
        return table


def _read_jsonl(source: Source, cursor: Json, limit: int) -> Page:
    items: list[Item] = []
    rejected: list[DeadLetter] = []
    offset, line, rows = cursor["offset"], cursor["line"], cursor["rows"]
    exhausted = True
    with Path(source.path).open("rb") as file:
        file.seek(offset)
        while _more(source, rows):
            raw = file.readline(MOST_BYTES + 1)
            if not raw:
                break
            if len(items) >= limit:
                exhausted = False
                break
            size = len(raw) + (_skip_line(file) if len(raw) > MOST_BYTES else 0)
            offset, line = offset + size, line + 1
            if not raw.strip():
                continue
            rows += 1
            _sort(_parse(source, line, raw, size), items, rejected)
    return Page(tuple(items), tuple(rejected), {"offset": offset, "line": line, "rows": rows}, exhausted)


def _more(source: Source, rows: int) -> bool:
    return source.limit is None or rows < source.limit


def _skip_line(file: io.BufferedReader) -> int:
    """Read to the end of the line, keeping none of it; returns how many bytes that were."""
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _sort(read: Item | DeadLetter, items: list[Item], rejected: list[DeadLetter]) -> None:
    if isinstance(read, Item):
        items.append(read)
    else:
        rejected.append(read)


def _parse(source: Source, line: int, raw: bytes, size: int) -> Item | DeadLetter:
    if size > MOST_BYTES:
        return _letter(source, line, "too_large", f"{size} bytes, at most {MOST_BYTES}: shorten the row", None)
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return _letter(source, line, "not_utf8", f"byte {error.start} is not UTF-8: convert the file", raw[:200].hex())
    try:
        value = from_json(text)
    except ValueError as error:
        return _letter(source, line, "not_json", f"{error}: the row is not whole JSON", text[:2_000])
    return _item(source, value, line)


def _item(source: Source, value: Json, line: int) -> Item | DeadLetter:
    if _is_deeper(value, MOST_LEVELS):
        return _letter(source, line, "too_deep", f"nested deeper than {MOST_LEVELS} levels: flatten the row", None)
    found = value.get(source.id_field) if isinstance(value, dict) else None
    return Item(value, str(line) if found is None else str(found))


def _is_deeper(value: Json, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(part, levels - 1) for part in inner)


def _letter(source: Source, line: int, reason: str, message: str, content: Json) -> DeadLetter:
    place = f"{source.path} line {line}: {message}"
    return DeadLetter(source.path, line, reason, place, now_ns(), content)


class _Table:
    """An open CSV or Parquet file and how many of its rows were read: the next page goes on where it stands."""

    def __init__(self, source: Source) -> None:
        self.done = 0
        self._rows = _csv_rows(source) if source.format == "csv" else _parquet_rows(source)
        self._ahead: dict[str, Json] | None = next(self._rows, None)

    def skip_to(self, row: int) -> None:
        """Pass over rows that an earlier reader has delivered."""
        while self.done < row and self._ahead is not None:
            self.take()

    def take(self) -> dict[str, Json]:
        """The next row; there must be one."""
        row, self._ahead = self._ahead, next(self._rows, None)
        assert row is not None
        self.done += 1
        return row

    def page(self, source: Source, limit: int) -> Page:
        """Up to `limit` rows."""
        items: list[Item] = []
        rejected: list[DeadLetter] = []
        while self._ahead is not None and _more(source, self.done) and len(items) < limit:
            _sort(_table_item(source, self.take(), self.done), items, rejected)
        exhausted = self._ahead is None or not _more(source, self.done)
        return Page(tuple(items), tuple(rejected), {"offset": 0, "line": self.done, "rows": self.done}, exhausted)


def _table_item(source: Source, row: dict[str, Json], number: int) -> Item | DeadLetter:
    """A table's row as JSON: a column may hold bytes, which are none."""
    try:
        value = from_json(to_json(row))
    except (PydanticSerializationError, UnicodeDecodeError) as error:
        return _letter(source, number, "not_json", f"a column holds what is no JSON ({error}): convert it", None)
    return _item(source, value, number)


def _csv_rows(source: Source) -> Iterator[dict[str, Json]]:
    csv.field_size_limit(MOST_BYTES)
    try:
        with Path(source.path).open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {source.path}: byte {error.start} is not UTF-8: convert the file") from None


def _parquet_rows(source: Source) -> Iterator[dict[str, Json]]:
    import pyarrow.parquet  # noqa: PLC0415 - half a second that only Parquet inputs should cost

    for batch in pyarrow.parquet.ParquetFile(source.path).iter_batches(batch_size=1_000):
        yield from batch.to_pylist()
