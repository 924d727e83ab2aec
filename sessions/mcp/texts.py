"""Texts that servers wrote: data to be shown, never obeyed. Stripped of what moves a terminal, cut to a bound, and
without the secrets that this side put in. Knows no protocol.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice

from retinue.runs.contracts import Json

MAX_DEPTH = 64
"""Levels of nesting in what a server describes: no form and no arguments of a tool need more."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|.)?", re.S)
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_CUT = " […]"


def clean(text: str, most: int) -> str:
    """The text without escape sequences, control and invisible characters, at most `most` characters."""
    text = _HIDDEN.sub("", _ESCAPES.sub("", text[: most * 4]))
    return text if len(text) <= most else text[: most - len(_CUT)] + _CUT


def one_line(text: str, most: int) -> str:
    """As `clean`, with every run of white space as one space: for error messages."""
    return clean(" ".join(_ESCAPES.sub("", text[: most * 4]).split()), most)


def hide(text: str, secrets: Collection[str]) -> str:
    """The text with each secret replaced."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def clean_json(value: Json, most: int) -> Json:
    """A copy of a description in which every text is clean. ValueError when it is nested too deep."""
    return _clean_part(value, most, MAX_DEPTH)


def measure(value: object, most: int) -> int:
    """About the bytes of a value's JSON; stops counting once past `most`."""
    total, pending = 0, [value]
    while pending and total <= most:
        part = pending.pop()
        if isinstance(part, str):
            total += len(part) + 2
        elif isinstance(part, dict):
            total += 2 + sum(len(name) + 4 for name in islice(part, most))
            pending.extend(part.values())
        elif isinstance(part, list):
            total += 2 + len(part)
            pending.extend(part)
        else:
            total += 5
    return total


def _clean_part(value: Json, most: int, levels: int) -> Json:
    if levels == 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return clean(value, most)
    if isinstance(value, dict):
        return {clean(name, most): _clean_part(part, most, levels - 1) for name, part in value.items()}
    if isinstance(value, list):
        return [_clean_part(part, most, levels - 1) for part in value]
    return value
