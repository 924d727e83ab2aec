"""Rows of a user's file as inputs of a batch: JSONL, CSV, Parquet, read by cursor in pages.

What cannot become an input is returned as a dead letter with its line, never dropped. Blocking: hosts call it
in a thread. Knows no run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from retinue.host.clock import now_ns
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import DeadLetter
from retinue.runs.sources import Item, Page, Source

MOST_BYTES = 64 * 1024 * 1024
"""A longer line is a dead letter."""
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
    """Implements `runs.sources.SourceReader` for files."""

    def read(self, source: Source, cursor: Json, limit: int) -> Page:
        """Up to `limit` rows from the cursor on. InvalidInput when the file is not the one that was accepted."""
        if cursor is None:
            found = fingerprint(Path(source.path))
            if source.fingerprint and found != source.fingerprint:
                raise InvalidInput(f"input {source.path} changed since the job began: submit a new job, or restore it")
            cursor = {"offset": 0, "line": 0, "rows": 0}
        if source.format == "jsonl":
            return _read_jsonl(source, cursor, limit)
        return _read_table(source, cursor, limit)


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
            if len(raw) > MOST_BYTES:
                raw += _skip_line(file)
            offset, line = offset + len(raw), line + 1
            if not raw.strip():
                continue
            rows += 1
            parsed = _parse(source, line, raw)
            (items if isinstance(parsed, Item) else rejected).append(parsed)  # type: ignore[arg-type]
    return Page(tuple(items), tuple(rejected), {"offset": offset, "line": line, "rows": rows}, exhausted)


def _more(source: Source, rows: int) -> bool:
    return source.limit is None or rows < source.limit


def _skip_line(file: io.BufferedReader) -> bytes:
    skipped = b""
    while not skipped.endswith(b"\n"):
        piece = file.readline(1 << 20)
        if not piece:
            break
        skipped += piece
    return skipped


def _parse(source: Source, line: int, raw: bytes) -> Item | DeadLetter:
    if len(raw) > MOST_BYTES:
        return _letter(source, line, "too_large", f"{len(raw)} bytes, at most {MOST_BYTES}", None)
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return _letter(source, line, "not_utf8", f"byte {error.start} is not UTF-8: convert the file", raw[:200].hex())
    try:
        value = json.loads(text)
    except ValueError as error:
        return _letter(source, line, "not_json", f"{error}: the row is not whole JSON", text[:2_000])
    return _item(source, value, line)


def _item(source: Source, value: Json, line: int) -> Item:
    found = value.get(source.id_field) if isinstance(value, dict) else None
    return Item(value, str(line) if found is None else str(found))


def _letter(source: Source, line: int, reason: str, message: str, content: Json) -> DeadLetter:
    place = f"{source.path} line {line}: {message}"
    return DeadLetter(source.path, line, reason, place, now_ns(), content)


def _read_table(source: Source, cursor: Json, limit: int) -> Page:
    """CSV and Parquet: the cursor counts rows; earlier ones are skipped."""
    items: list[Item] = []
    done = cursor["rows"]
    exhausted = True
    rows = _csv_rows(source) if source.format == "csv" else _parquet_rows(source, done)
    first = done if source.format == "parquet" else 0
    for number, row in enumerate(rows, start=first + 1):
        if number <= done:
            continue
        if not _more(source, number - 1):
            break
        if len(items) >= limit:
            exhausted = False
            break
        items.append(_item(source, row, number))
    after = done + len(items)
    return Page(tuple(items), (), {"offset": 0, "line": after, "rows": after}, exhausted)


def _csv_rows(source: Source) -> Iterator[dict[str, Json]]:
    try:
        with Path(source.path).open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {source.path}: byte {error.start} is not UTF-8: convert the file") from None


def _parquet_rows(source: Source, skip: int) -> Iterator[dict[str, Json]]:
    import pyarrow.parquet  # noqa: PLC0415 - half a second that only Parquet inputs should cost

    file = pyarrow.parquet.ParquetFile(source.path)
    seen = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if seen + count > skip:
            rows = file.read_row_group(group).to_pylist()
            yield from rows[max(skip - seen, 0) :]
        seen += count
