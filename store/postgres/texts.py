"""Any text in PostgreSQL: its `text` knows neither NUL nor half a surrogate pair, so these are written in words.

A mark and five hexadecimal digits stand for such a character, and for the mark itself: what is equal stays equal, and
every text comes back as it was. Knows no table.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.types.string import StrDumperUnknown, TextBinaryLoader

_MARK = "\U000f0000"
_STRANGE = re.compile("[\x00\ud800-\udfff\U000f0000]")
_WRITTEN = re.compile("\U000f0000([0-9a-f]{5})")
_MARK_BYTES = _MARK.encode()


class _Dumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        try:
            return super().dump(obj) if _MARK not in obj else _encoded(obj)
        except (psycopg.DataError, UnicodeEncodeError):
            return _encoded(obj)


class _Loader(TextBinaryLoader):
    def load(self, data: Buffer) -> str:
        raw = bytes(data)
        text = raw.decode()
        return text if _MARK_BYTES not in raw else _WRITTEN.sub(lambda match: chr(int(match[1], 16)), text)


def take_any_text(connection: psycopg.Connection[Any]) -> None:
    """Let texts of this connection hold any character that Python's may."""
    connection.adapters.register_dumper(str, _Dumper)
    connection.adapters.register_loader("text", _Loader)


def _encoded(text: str) -> bytes:
    return _STRANGE.sub(lambda match: f"{_MARK}{ord(match[0]):05x}", text).encode()
