"""Answers as text or bytes: aligned table, JSON, CSV, Parquet.

Owns how values are written. Decimals are strings in JSON, so that no cent is lost; times are ISO 8601 in
UTC; JSON columns stay text. Knows no query.
"""

from __future__ import annotations

import io
import json
import unicodedata
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from retinue.runs.errors import InvalidInput

FORMATS = ("table", "json", "csv", "parquet")
WIDTH = 60
"""Characters a cell of the aligned table may take; what is longer ends in an ellipsis."""


def render(table: pa.Table, how: str, width: int = WIDTH) -> str | bytes:
    """The table in one of FORMATS: text, or bytes for parquet. Raises InvalidInput for another format."""
    match how:
        case "table":
            return as_text(table, width)
        case "json":
            return as_json(table)
        case "csv":
            return as_csv(table)
        case "parquet":
            return as_parquet(table)
    raise InvalidInput(f"format {how!r} is not known; use one of {', '.join(FORMATS)}")


def as_text(table: pa.Table, width: int = WIDTH) -> str:
    """Aligned columns, numbers to the right, long cells cut; the number of rows below."""
    columns = [[_cell(value, width) for value in _values(column)] for column in table.columns]
    wide = [
        max([_columns_of(name), *map(_columns_of, cells)])
        for name, cells in zip(table.column_names, columns, strict=True)
    ]
    right = [_is_number(kind) for kind in table.schema.types]
    lines = [_line(table.column_names, wide, right), "  ".join("-" * size for size in wide)]
    lines += [_line(list(cells), wide, right) for cells in zip(*columns, strict=True)]
    lines.append(f"({table.num_rows} row{'' if table.num_rows == 1 else 's'})")
    return "\n".join(lines) + "\n"


def as_json(table: pa.Table) -> str:
    """A JSON array of objects, one a row. Of two columns with one name the later is numbered."""
    names = _unique(table.column_names)
    columns = [[_jsonable(value) for value in _values(column)] for column in table.columns]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def as_csv(table: pa.Table) -> str:
    """CSV with a header; lists and structs as JSON."""
    flat = [
        pa.array([_flat(value) for value in _values(column)], pa.string())
        if pa.types.is_nested(column.type)
        else column
        for column in table.columns
    ]
    sink = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(flat, names=_unique(table.column_names)), sink)
    return sink.getvalue().decode()


def as_parquet(table: pa.Table) -> bytes:
    """A Parquet file, zstd-compressed."""
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table.rename_columns(_unique(table.column_names)), sink, compression="zstd")
    return sink.getvalue()


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; times in nanoseconds lose what a datetime cannot hold."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _unique(names: list[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        free, number = name, 2
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        taken.append(free)
    return taken


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float) else _written(value)


def _written(value: Any) -> str:
    """One value in words that read back: times in ISO 8601, money in full."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, bytes):
        return value.hex()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _flat(value: Any) -> str | None:
    return None if value is None else json.dumps(_jsonable(value), ensure_ascii=False)


def _cell(value: Any, width: int) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list | tuple):
        text = json.dumps(_jsonable(value), ensure_ascii=False)
    elif isinstance(value, float):
        text = f"{value:.6g}" if abs(value) < 1_000_000 else f"{value:.0f}"
    else:
        text = str(value).lower() if isinstance(value, bool) else _written(value)
    text = "".join(" " if unicodedata.category(sign) in {"Cc", "Cf"} else sign for sign in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _columns_of(text: str) -> int:
    """Columns on a terminal: wide signs take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(sign) else 2 if _is_wide(sign) else 1 for sign in text)


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in {"W", "F"}


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _line(cells: list[str], wide: list[int], right: list[bool]) -> str:
    padded = []
    for cell, size, to_right in zip(cells, wide, right, strict=True):
        space = " " * (size - _columns_of(cell))
        padded.append(space + cell if to_right else cell + space)
    return "  ".join(padded).rstrip()
