"""Results: validated against the return type, turned into JSON, kept within the cap.

A text or a list that is too large is cut and says so; anything else too large is an error, since half an
object is no object. Sizes are judged before values are validated. Knows no call in progress.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from retinue.runs.capabilities import CallResult, Capability, Whole
from retinue.runs.errors import PermanentError
from retinue.runs.piecewise import plain, weigh
from retinue.sessions.complaints import explain_output
from retinue.sessions.connections import RemoteResult

ANY: TypeAdapter[Any] = TypeAdapter(Any)
"""For values that are JSON already."""

_AT_ONCE = 1_000
"""Items of a list that are read in one call, which no other thread interrupts."""

LARGEST = 64 * 1024 * 1024
"""Bytes of JSON above which nothing is kept of a result but what the cap leaves."""


def cap_result(capability: Capability, adapter: TypeAdapter[Any], outcome: object) -> CallResult:
    """The outcome of a call as JSON of at most `capability.max_bytes` bytes; all of it beside that where it had more.

    Raises PermanentError: `invalid_output` naming the field, `too_large` naming cap, size and remedy.
    """
    cap = capability.max_bytes
    least = weigh(outcome, max(cap, LARGEST))
    kept = outcome if least <= max(cap, LARGEST) else _shorten_unread(capability, outcome, least)
    value, text = _read(capability, adapter, kept)
    if len(text) <= cap and kept is outcome:
        return CallResult(value, len(text))
    if kept is not outcome or len(text) > LARGEST:
        size = f"{len(text):,}" if kept is outcome else f"at least {least:,}"
        return _shorten(capability, outcome, value, size)
    whole = Whole(value, len(text), sha256(text).hexdigest())
    try:
        return replace(_shorten(capability, outcome, whole.value, f"{len(text):,}"), full=whole)
    except PermanentError as error:
        error.full = whole
        raise


def cap_blocks(capability: Capability, result: RemoteResult) -> CallResult:
    """What a server returned without a structure: its text, or a list of its blocks. The base64 of an image, a sound or
    a file that would fill the cap is left out of the value, and kept in the whole.
    """
    if result.only_text:
        return cap_result(capability, ANY, result.text if result.content else None)
    blocks = [{name: part for name, part in block.items() if part is not None} for block in result.content]
    lean = [_lean(block, capability.max_bytes // 2) for block in blocks]
    if lean == blocks:
        return cap_result(capability, ANY, blocks)
    text = to_json(blocks)
    whole = Whole(blocks, len(text), sha256(text).hexdigest()) if len(text) <= LARGEST else None
    return replace(cap_result(capability, ANY, lean), cut=True, full=whole)


def _lean(block: dict[str, Any], most: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, part in block.items():
        if name in ("data", "blob") and isinstance(part, str) and len(part) > most:
            kept["left_out"] = f"{len(part):,} characters of base64: more than the cap of this tool allows"
        else:
            kept[name] = _lean(part, most) if isinstance(part, dict) else part
    return kept


def _read(capability: Capability, adapter: TypeAdapter[Any], outcome: object) -> tuple[Any, bytes]:
    """An outcome as JSON: the value and its text."""
    try:
        if adapter is ANY:
            return plain(outcome)
        if isinstance(outcome, list) and len(outcome) > _AT_ONCE and _is_plain_list(adapter):
            with suppress(ValidationError):  # what is wrong and where is said of the whole
                return _read_list(adapter, outcome)
        text = adapter.dump_json(adapter.validate_python(outcome, strict=True), warnings="error")
        return from_json(text), text
    except ValidationError as error:
        problem = explain_output(capability.name, error)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        problem = f"tool {capability.name!r} returned what has no JSON form: {' '.join(str(error).split())}."
    raise PermanentError(f"{problem} Correct the tool.{_aftermath(capability)}", code="invalid_output") from None


def _is_plain_list(adapter: TypeAdapter[Any]) -> bool:
    """Whether a list fits exactly when all parts of it do."""
    schema = adapter.core_schema
    return schema["type"] == "list" and not {"min_length", "max_length", "fail_fast", "serialization"} & schema.keys()


def _read_list(adapter: TypeAdapter[Any], items: list[Any]) -> tuple[Any, bytes]:
    value: list[Any] = []
    texts: list[bytes] = []
    for start in range(0, len(items), _AT_ONCE):
        some = adapter.validate_python(items[start : start + _AT_ONCE], strict=True)
        text = adapter.dump_json(some, warnings="error")
        value += from_json(text)
        texts.append(text[1:-1])
    return value, b"[" + b",".join(texts) + b"]"


def _shorten_unread(capability: Capability, outcome: object, least: int) -> object:
    """A part of an outcome that is surely too large, taken before anything reads all of it."""
    cap = capability.max_bytes
    if isinstance(outcome, str):
        return outcome[:cap]
    if not isinstance(outcome, list):
        _refuse_size(capability, f"at least {least:,}")
    total = 0
    for index, item in enumerate(outcome):
        total += weigh(item, cap)
        if total > cap:
            return outcome[:index]
    return outcome


def _shorten(capability: Capability, outcome: object, value: object, size: str) -> CallResult:
    cap = capability.max_bytes
    if isinstance(value, str) and isinstance(outcome, str):
        notice = f"\n[cut: the first part of {len(outcome):,} characters; the cap is {cap:,} bytes]"
        if len(to_json(notice)) < cap:
            return _cut_text(value, notice, cap)
    elif isinstance(value, list) and isinstance(outcome, list):
        kept, used = _fit_items(value, cap)
        if kept:
            return CallResult(kept, used, cut=len(kept) < len(outcome))
    _refuse_size(capability, size)


def _cut_text(text: str, notice: str, cap: int) -> CallResult:
    room = cap - len(to_json(notice))
    kept = text[:room]
    while (size := len(to_json(kept)) - 2) > room:
        kept = kept[: min(len(kept) - 1, len(kept) * room // size)]
    return CallResult(kept + notice, len(to_json(kept + notice)), cut=True)


def _fit_items(items: list[object], cap: int) -> tuple[list[object], int]:
    used = 2
    for index, item in enumerate(items):
        more = len(to_json(item)) + (1 if index else 0)
        if used + more > cap:
            return items[:index], used
        used += more
    return items, used


def _refuse_size(capability: Capability, size: str) -> NoReturn:
    raise PermanentError(
        f"tool {capability.name!r} returned {size} bytes of JSON; its cap is {capability.max_bytes:,}. "
        f"Return less, or raise max_bytes.{_aftermath(capability)}",
        code="too_large",
    )


def _aftermath(capability: Capability) -> str:
    return " The call was made: its effect has happened." if capability.side_effect == "write" else ""
