"""Rows of a user's file as inputs of a batch: JSONL, CSV, Parquet, read by cursor in pages.

What cannot become an input is returned as a dead letter with its line, never dropped. Blocking: hosts call it
in a thread. Knows no run.
"""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator
from itertools import accumulate, islice
from threading import Lock
from typing import BinaryIO

from pydantic_core import PydanticSerializationError, from_json, to_json

from retinue.host.clock import now_ns
from retinue.host.files import fingerprint, is_remote, open_file
from retinue.host.files import source_of as source_of
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.ownership import DeadLetter
from retinue.runs.sources import Item, Page, Source

MOST_BYTES = 64 * 1024 * 1024
"""A longer line is a dead letter."""
MOST_LEVELS = 100
"""Lists and objects inside each other; a deeper row is a dead letter. The journal reads 200 back, wrapping included."""
_MOST_OPEN = 64
_STREAM = 1 << 20
"""Bytes of a column of a Parquet file that are read at a time."""
_WORTH_A_SKIP = 10_000
"""Rows that a Parquet reader is moved over; further on, opening the file again at its row group is cheaper."""


class RowReader:
    """Implements `runs.sources.SourceReader` for files, local or of a shared place. Thread-safe.

    Tables, and files that are read over the network, stay open between the pages of their jobs, and move on when
    other hosts have read pages in between: each host reads a file at most once.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[_Place, _Lines | _Table] = OrderedDict()
        self._lock = Lock()

    def read(self, source: Source, cursor: Json, limit: int) -> Page:
        """Up to `limit` rows from the cursor on. InvalidInput when the file is not the one that was accepted."""
        if cursor is None:
            found = fingerprint(source.path)
            if source.fingerprint and found != source.fingerprint:
                raise InvalidInput(f"input {source.path} changed since the job began: submit a new job, or restore it")
            cursor = {"offset": 0, "line": 0, "rows": 0}
        if source.format == "jsonl" and not is_remote(source.path):
            with open_file(source) as file:
                return _read_jsonl(source, cursor, limit, file)
        opened = self._taken(source, cursor) or _opened(source, cursor)
        try:
            page = opened.page(source, cursor, limit)
        except BaseException:
            opened.close()
            raise
        if page.exhausted:
            opened.close()
        else:
            self._keep(_place(source), opened)
        return page

    def _taken(self, source: Source, cursor: Json) -> _Lines | _Table | None:
        with self._lock:
            found = self._open.pop(_place(source), None)
        if found is not None and not found.reaches(int(cursor["rows"])):
            found.close()
            return None
        return found

    def _keep(self, place: _Place, opened: _Lines | _Table) -> None:
        """A reader that stands where a page ended; of those that nobody came back to, the oldest is closed."""
        with self._lock:
            unwanted = [self._open.pop(place)] if place in self._open else []
            self._open[place] = opened
            if len(self._open) > _MOST_OPEN:
                unwanted.append(self._open.popitem(last=False)[1])
        for each in unwanted:
            each.close()


_Place = tuple[str, str]


def _place(source: Source) -> _Place:
    return source.path, source.fingerprint


def _opened(source: Source, cursor: Json) -> _Lines | _Table:
    return _Lines(open_file(source)) if source.format == "jsonl" else _Table(source, int(cursor["rows"]))


class _Lines:
    """A JSONL file that is read over the network: what was fetched ahead is kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def reaches(self, row: int) -> bool:
        """True: the cursor has the offset of any row."""
        return True

    def page(self, source: Source, cursor: Json, limit: int) -> Page:
        """Up to `limit` rows from the cursor's offset on."""
        return _read_jsonl(source, cursor, limit, self._file)


def _read_jsonl(source: Source, cursor: Json, limit: int, file: BinaryIO) -> Page:
    items: list[Item] = []
    rejected: list[DeadLetter] = []
    offset, line, rows = cursor["offset"], cursor["line"], cursor["rows"]
    exhausted = True
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


def _skip_line(file: BinaryIO) -> int:
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

    def __init__(self, source: Source, row: int) -> None:
        self.done = row
        self._skips = math.inf if source.format == "csv" else _WORTH_A_SKIP
        self._rows = _csv_rows(source, row) if source.format == "csv" else _parquet_rows(source, row)
        self._ahead: dict[str, Json] | None = next(self._rows, None)

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()

    def reaches(self, row: int) -> bool:
        """Whether it is worth going on to a row; a reader does not go back."""
        return 0 <= row - self.done <= self._skips

    def _take(self) -> dict[str, Json]:
        """The next row; there must be one."""
        row, self._ahead = self._ahead, next(self._rows, None)
        assert row is not None
        self.done += 1
        return row

    def page(self, source: Source, cursor: Json, limit: int) -> Page:
        """Up to `limit` rows."""
        items: list[Item] = []
        rejected: list[DeadLetter] = []
        while self._ahead is not None and self.done < int(cursor["rows"]):
            self._take()
        while self._ahead is not None and _more(source, self.done) and len(items) < limit:
            _sort(_table_item(source, self._take(), self.done), items, rejected)
        exhausted = self._ahead is None or not _more(source, self.done)
        return Page(tuple(items), tuple(rejected), {"offset": 0, "line": self.done, "rows": self.done}, exhausted)


def _table_item(source: Source, row: dict[str, Json], number: int) -> Item | DeadLetter:
    """A table's row as JSON: a column may hold bytes, which are none."""
    try:
        value = from_json(to_json(row))
    except (PydanticSerializationError, UnicodeDecodeError) as error:
        return _letter(source, number, "not_json", f"a column holds what is no JSON ({error}): convert it", None)
    return _item(source, value, number)


def _csv_rows(source: Source, start: int) -> Generator[dict[str, Json], None, None]:
    """The rows after the first `start`, which are passed over."""
    csv.field_size_limit(MOST_BYTES)
    try:
        with io.TextIOWrapper(open_file(source), encoding="utf-8-sig", newline="") as file:
            yield from islice(csv.DictReader(file), start, None)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {source.path}: byte {error.start} is not UTF-8: convert the file") from None
    except csv.Error as error:
        raise InvalidInput(f"input {source.path} is not CSV that can be read: {error}; convert it to JSONL") from None


def _parquet_rows(source: Source, start: int) -> Generator[dict[str, Json], None, None]:
    """The rows after the first `start`; row groups before them are not read."""
    import pyarrow.parquet  # noqa: PLC0415 - half a second that only Parquet inputs should cost

    try:
        with open_file(source) as file, pyarrow.parquet.ParquetFile(file, buffer_size=_STREAM) as table:
            sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
            ends = list(accumulate(sizes))
            first = bisect_right(ends, start)
            passed = start - (ends[first - 1] if first else 0)
            batches = table.iter_batches(batch_size=1_000, row_groups=list(range(first, len(sizes))))
            yield from islice((row for batch in batches for row in batch.to_pylist()), passed, None)
    except pyarrow.ArrowException as error:
        raise InvalidInput(f"input {source.path} is not Parquet that can be read: {error}") from None
