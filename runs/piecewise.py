"""JSON of large values, made in pieces.

One call for all of a large value keeps the interpreter to itself until it is done, in whichever thread it is made, and
stops every event loop of the process for that long. What JSON's strict form has no word for and Python has, lone
surrogates and numbers of thousands of digits, is written and read all the same. Knows what a value weighs, not what it
means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json, to_jsonable_python

from retinue.runs.contracts import Json

PIECE = 256 * 1024
"""Bytes of JSON, about, that are made in one call."""

_OPEN: dict[bytes, type[Any]] = {b"[": list, b"{": dict}

_DEEPEST = 100
"""Levels of nesting that are looked into for pieces."""

_MOST_LEVELS = 255
"""Levels of nesting that are written, as `to_json` has it."""


def dump(value: object) -> bytes:
    """As `pydantic_core.to_json`, which also says what is raised; between pieces there is a line's end. Lone surrogates
    are kept, escaped.
    """
    if weigh(value, PIECE) <= PIECE:
        return _json(value, read=False)
    texts: list[bytes] = []
    _put(value, texts, parse=False)
    return b"\n".join(texts)


def load(text: bytes) -> Json:
    """What `dump` has made, piece by piece, or any other JSON. ValueError when it is none."""
    lines = text.split(b"\n")
    if len(lines) > 1 and lines[0] in _OPEN:
        with suppress(ValueError, TypeError, IndexError):  # these lines are others' lines: read as a whole
            return _load_lines(lines)
    return _read(text)


def plain(value: object) -> tuple[Json, bytes]:
    """The value as it is read from its JSON, and that JSON: strict, so what is no number is null."""
    texts: list[bytes] = []
    found = _put(value, texts, parse=True)
    return found, b"".join(texts)


def weigh(value: object, cap: int) -> int:
    """A lower bound of the bytes of a value's JSON; stops counting once past `cap`."""
    total = 0
    pending: list[object] = [value]
    while pending and total <= cap:
        part = pending.pop()
        if isinstance(part, str):
            total += len(part) + 2
        elif isinstance(part, dict):
            total += 2 + sum(len(key) + 3 for key in part if isinstance(key, str))
            pending.extend(part.values())
        elif isinstance(part, list | tuple):
            total += 2
            pending.extend(part)
        elif part is None or isinstance(part, int | float):
            total += 1
        else:
            total += 1
            pending.extend(_parts(part))
    return total


def _parts(value: object) -> list[object]:
    """What a model or dataclass surely serialises; nothing where its class has a say in that."""
    if isinstance(value, BaseModel):
        decorators = type(value).__pydantic_decorators__
        if decorators.model_serializers or decorators.field_serializers:
            return []
        shown = (name for name, field in type(value).model_fields.items() if not field.exclude)
        return [value.__dict__.get(name) for name in shown]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return []


def _put(value: Any, texts: list[bytes], parse: bool, level: int = 0) -> Json:
    """Add the text of a value; the value as it is read from that, where it is wanted."""
    kind = type(value)
    if kind is str and len(value) > PIECE:
        slices = (value[start : start + PIECE] for start in range(0, len(value), PIECE))
        texts.append(b'"' + b"".join(_json(part, parse)[1:-1] for part in slices) + b'"')
        return value
    if level < _DEEPEST and kind in (list, tuple, dict) and weigh(value, PIECE) > PIECE:
        if kind is not dict:
            return _put_list(value, texts, parse, level)
        if all(type(name) is str for name in value):
            return _put_dict(value, texts, parse, level)
    text = _json(value, parse)
    texts.append(text)
    return from_json(text) if parse else None


def _json(value: object, read: bool) -> bytes:
    if read:
        return to_json(value, inf_nan_mode="null")
    try:
        return to_json(value, inf_nan_mode="constants")
    except ValueError:  # of lone surrogates, or for good
        with suppress(RecursionError):
            return _escaped(value)
        raise


def _escaped(value: object, level: int = 0) -> bytes:
    """As `to_json`, which also says what is raised, with lone surrogates as JSON has them in other characters."""
    if level > _MOST_LEVELS:
        raise ValueError("it is nested too deeply, or a part of itself")
    if isinstance(value, str):
        return json.dumps(to_jsonable_python(value)).encode()
    if isinstance(value, dict):
        pairs = (_escaped(_name(name)) + b":" + _escaped(part, level + 1) for name, part in value.items())
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(_escaped(part, level + 1) for part in value) + b"]"
    found = to_jsonable_python(value)
    return _escaped(found, level + 1) if isinstance(found, str | dict | list) else to_json(found)


def _name(name: object) -> str:
    if isinstance(name, str):
        return str(to_jsonable_python(name))
    return str(next(iter(from_json(to_json({name: None})))))


def _read(text: bytes) -> Json:
    """The strict parser knows no lone surrogate, no number of thousands of digits and no more than 200 levels."""
    try:
        return from_json(text)
    except ValueError as error:
        try:
            return json.loads(text, parse_int=lambda digits: int(Decimal(digits)))
        except (ValueError, RecursionError):
            raise error from None


def _put_list(items: Any, texts: list[bytes], parse: bool, level: int) -> list[Json]:
    found: list[Json] = []
    texts.append(b"[")
    for number, group in enumerate(_grouped((item, weigh(item, PIECE)) for item in items)):
        texts += (b",",) if number else ()
        if len(group) == 1:
            found.append(_put(group[0], texts, parse, level + 1))
            continue
        text = _json(group, parse)
        texts.append(text[1:-1])
        found += from_json(text) if parse else ()
    texts.append(b"]")
    return found


def _put_dict(items: dict[str, Any], texts: list[bytes], parse: bool, level: int) -> dict[str, Json]:
    found: dict[str, Json] = {}
    texts.append(b"{")
    for number, group in enumerate(_grouped((pair, len(pair[0]) + weigh(pair[1], PIECE)) for pair in items.items())):
        texts += (b",",) if number else ()
        if len(group) == 1:
            name, value = group[0]
            texts.append(_json(name, parse) + b":")
            found[name] = _put(value, texts, parse, level + 1)
            continue
        text = _json(dict(group), parse)
        texts.append(text[1:-1])
        found |= from_json(text) if parse else {}
    texts.append(b"}")
    return found


def _load_lines(lines: list[bytes]) -> Json:
    """What `_put` has made: brackets, commas and names stand on lines of their own, the rest are neighbours."""
    opened: list[tuple[Any, str | None]] = []
    name: str | None = None
    for line in lines:
        if line in _OPEN:
            opened.append((_OPEN[line](), name))
            name = None
        elif line in (b"]", b"}"):
            ended, its_name = opened.pop()
            if not opened:
                return ended
            _attach(opened[-1][0], its_name, ended)
        elif line.endswith(b":"):
            name = _read(line[:-1])
        elif name is not None:
            opened[-1][0][name] = _read(line)
            name = None
        elif line != b",":
            _extend(opened[-1][0], line)
    raise ValueError("it does not end")


def _attach(opened: Any, name: str | None, part: Json) -> None:
    if isinstance(opened, list):
        opened.append(part)
    else:
        opened[name] = part


def _extend(opened: Any, line: bytes) -> None:
    """Add neighbours to what they stand in."""
    if isinstance(opened, list):
        opened += _read(b"[" + line + b"]")
    else:
        opened |= _read(b"{" + line + b"}")


def _grouped(weighed: Iterable[tuple[Any, int]]) -> Iterator[list[Any]]:
    """Neighbours that weigh a piece together; what weighs more stands alone."""
    group: list[Any] = []
    total = 0
    for item, weight in weighed:
        if group and total + weight > PIECE:
            yield group
            group, total = [], 0
        group.append(item)
        total += weight
    if group:
        yield group
