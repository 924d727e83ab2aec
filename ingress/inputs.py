"""The look at an input file before any run starts: is there something to do, and can its rows be told apart.

Owns what is refused outright. A single bad row is none of that: it becomes a dead letter while the rest runs.
Memory is bounded: ids are compared by digest, in buckets that spill to disk.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import IO

import pyarrow.parquet
from pydantic_core import from_json

from retinue.host.files import open_file
from retinue.host.rows import MOST_BYTES
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.sources import Source

_BUCKETS = 64
_SPILL = 1 << 20
_DIGEST = 16
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class InputCheck:
    """What the look found: rows that will be tried, and how many of them can be read."""

    rows: int
    readable: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A row's line (or number, for tables) and id; `problem` says why it cannot be read."""

    line: int
    id: str | None = None
    problem: str = ""


def check_input(source: Source, id_given: bool) -> InputCheck:
    """Look through the whole file once. Blocks; call it in a thread.

    `id_given`: the user named the column of ids, so every row must have it. Raises InvalidInput for an empty
    file, a missing column, an id that occurs twice, a file of which no row can be read.
    """
    if id_given and source.format != "jsonl":
        _check_column(source)
    readable = rows = 0
    first_problem = ""
    with _Seen(source) as seen:
        for row in _rows(source):
            if source.limit is not None and rows >= source.limit:
                break
            rows += 1
            if row.problem:
                first_problem = first_problem or f"line {row.line}: {row.problem}"
                continue
            readable += 1
            if row.id is not None:
                seen.add(row.id, row.line)
            elif id_given:
                where = f"input {source.path} line {row.line}"
                raise InvalidInput(f"{where}: there is no column {source.id_field!r}; correct --id or the row")
        seen.refuse_twins()
    if not rows:
        raise InvalidInput(f"input {source.path} is empty: it needs at least one row")
    if not readable:
        raise InvalidInput(f"input {source.path}: none of its {rows} rows can be read; {first_problem}")
    return InputCheck(rows, readable)


class _Seen:
    """The ids met so far, as digests with their lines, in buckets on disk when they are many."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open = ExitStack()
        self._buckets: list[IO[bytes]] = []

    def __enter__(self) -> _Seen:
        self._buckets = [
            self._open.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPILL))  # noqa: SIM115 - the stack is one
            for _ in range(_BUCKETS)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, input_id: str, line: int) -> None:
        """Remember an id."""
        digest = blake2b(input_id.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()
        self._buckets[digest[0] % _BUCKETS].write(digest + line.to_bytes(8))

    def refuse_twins(self) -> None:
        """InvalidInput when an id was met twice, naming the lines of the first few."""
        twins = sorted(pair for bucket in self._buckets for pair in _twins(bucket))
        if twins:
            shown = ", ".join(f"lines {first} and {again}" for again, first in twins[:_SHOWN])
            raise InvalidInput(
                f"input {self._source.path}: {len(twins)} ids in column {self._source.id_field!r} occur more than once "
                f"({shown}): make them unique, or name another column with --id"
            )


def _twins(bucket: IO[bytes]) -> Iterator[tuple[int, int]]:
    """(line, line of its first occurrence) for every digest met again."""
    first: dict[bytes, int] = {}
    bucket.seek(0)
    while record := bucket.read(_DIGEST + 8):
        digest, line = record[:_DIGEST], int.from_bytes(record[_DIGEST:])
        if digest in first:
            yield line, first[digest]
        else:
            first[digest] = line


def _rows(source: Source) -> Iterator[_Row]:
    match source.format:
        case "jsonl":
            return _jsonl_rows(source)
        case "csv":
            return _csv_rows(source)
        case _:
            return _parquet_rows(source)


def _jsonl_rows(source: Source) -> Iterator[_Row]:
    with open_file(source) as file:
        line = 0
        while raw := file.readline(MOST_BYTES + 1):
            line += 1
            if len(raw) > MOST_BYTES:
                _skip_line(file, raw)
                yield _Row(line, problem=f"more than {MOST_BYTES} bytes")
            elif raw.strip():
                yield _jsonl_row(source, line, raw)


def _jsonl_row(source: Source, line: int, raw: bytes) -> _Row:
    try:
        value = from_json(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return _Row(line, problem=f"byte {error.start} is not UTF-8: convert the file")
    except ValueError as error:
        return _Row(line, problem=f"not JSON: {error}")
    return _Row(line, _id(value.get(source.id_field) if isinstance(value, dict) else None))


def _skip_line(file: IO[bytes], piece: bytes) -> None:
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(_SPILL)


def _csv_rows(source: Source) -> Iterator[_Row]:
    with _open_csv(source) as reader:
        for number, row in enumerate(reader, start=1):
            yield _Row(number, _id(row.get(source.id_field)))


def _parquet_rows(source: Source) -> Iterator[_Row]:
    with _open_parquet(source) as file:
        if source.id_field not in file.schema_arrow.names:
            yield from (_Row(number) for number in range(1, file.metadata.num_rows + 1))
            return
        batches = file.iter_batches(columns=[source.id_field])
        values = (value for batch in batches for value in batch.column(0).to_pylist())
        yield from (_Row(number, _id(value)) for number, value in enumerate(values, start=1))


def _check_column(source: Source) -> None:
    names = _csv_names(source) if source.format == "csv" else _parquet_names(source)
    if names and source.id_field not in names:
        shown = ", ".join(map(str, names[:20]))
        raise InvalidInput(f"input {source.path}: there is no column {source.id_field!r} for --id; there are: {shown}")


def _csv_names(source: Source) -> list[str]:
    with _open_csv(source) as reader:
        return list(reader.fieldnames or ())


def _parquet_names(source: Source) -> list[str]:
    with _open_parquet(source) as file:
        return list(file.schema_arrow.names)


@contextmanager
def _open_csv(source: Source) -> Iterator[csv.DictReader[str]]:
    try:
        with io.TextIOWrapper(open_file(source), encoding="utf-8-sig", newline="") as file:
            yield csv.DictReader(file)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {source.path}: byte {error.start} is not UTF-8: convert the file") from None
    except csv.Error as error:
        raise InvalidInput(f"input {source.path} is not CSV that can be read: {error}; convert it to JSONL") from None


@contextmanager
def _open_parquet(source: Source) -> Iterator[pyarrow.parquet.ParquetFile]:
    try:
        with open_file(source) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInput(f"input {source.path} is not Parquet that can be read: {error}") from None


def _id(value: Json) -> str | None:
    return None if value is None else str(value)
