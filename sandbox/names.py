"""Names of files as text: every name that a file system can have has one, and each text stands for one name.

Owns how bytes that are not UTF-8 are written. Knows no file and no folder.
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(rb"\\x(5c|[89a-f][0-9a-f])")
_LOOKS_ESCAPED = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")
_NO_UTF8 = re.compile("[\udc80-\udcff]")


def text_of(name: bytes) -> str:
    """A name or path as text: UTF-8, and `\\xNN` for a byte that is none. `bytes_of` gives the same bytes back."""
    decoded = _LOOKS_ESCAPED.sub(lambda _: r"\x5c", name.decode("utf-8", "surrogateescape"))
    return _NO_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", decoded)


def bytes_of(text: str) -> bytes:
    """The bytes that a text stands for. UnicodeEncodeError for half a surrogate pair, which stands for none."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "surrogateescape"))
