"""What a program writes, kept in bounds: the beginning and the end of each stream, and the count of all of it.

Owns one stream's buffer and how it becomes text. Knows no process.
"""

from __future__ import annotations

import re
from collections import deque

CUT = re.compile(r"(\n\[\.\.\. \d+ bytes left out \.\.\.\]\n)")
"""What stands in a text where a part of the stream is left out."""


class Excerpt:
    """A stream of which at most `bound` bytes are kept: the first half of them and the last."""

    def __init__(self, bound: int) -> None:
        self.written = 0
        self._first = bytearray()
        self._first_bound = (bound + 1) // 2
        self._last: deque[bytes] = deque()
        self._last_bound = bound - self._first_bound
        self._last_size = 0

    def add(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self.written += len(data)
        room = self._first_bound - len(self._first)
        self._first += data[:room]
        rest = data[room:] if room > 0 else data
        if not rest or not self._last_bound:
            return
        self._last.append(rest[-self._last_bound :])
        self._last_size += len(self._last[-1])
        while self._last_size - len(self._last[0]) >= self._last_bound:
            self._last_size -= len(self._last.popleft())

    def text(self) -> str:
        """What was kept as UTF-8, what is none replaced; a line between the two parts says how much is left out."""
        last = b"".join(self._last)
        last = last[len(last) - self._last_bound :] if len(last) > self._last_bound else last
        left_out = self.written - len(self._first) - len(last)
        if not left_out:
            return (bytes(self._first) + last).decode("utf-8", "replace")
        cut = f"\n[... {left_out} bytes left out ...]\n"
        return self._first.decode("utf-8", "replace") + cut + last.decode("utf-8", "replace")
