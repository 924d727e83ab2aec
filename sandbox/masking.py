"""Values of secrets in what comes out of a sandbox: their names stand there instead. Pure.

A program is given secrets and may print them; its output is journaled, shown to models and streamed to people. Values
shorter than a snapshot looks for are left as they are: they would be found by chance. Where output was cut, or a file
is read in parts, the parts of a value go too.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping

from retinue.runs.sandboxes import ExecResult, FileContent
from retinue.sandbox.backends.streams import CUT
from retinue.sandbox.snapshots.rules import SHORTEST_SECRET

Tell = Callable[[str, str], None]
_PART = 3
"""Characters of a value that are taken for a part of it, where it may have been cut."""
_REPLACED = "\N{REPLACEMENT CHARACTER}"
"""What stands for a character that was cut in two."""


class Mask:
    """Puts names in the place of values. `secrets` are values by name."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        long = {name: value for name, value in secrets.items() if len(value.encode()) >= SHORTEST_SECRET}
        self._names = {value: f"[{name}]" for name, value in long.items()}
        self._values = sorted(self._names, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, self._values))) if long else None

    def text(self, text: str) -> str:
        """The text without values."""
        return text if self._any is None else self._any.sub(lambda found: self._names[found[0]], text)

    def result(self, done: ExecResult) -> ExecResult:
        """What an exec wrote, without values."""
        if self._any is None:
            return done
        return done.model_copy(update={"stdout": self._excerpt(done.stdout), "stderr": self._excerpt(done.stderr)})

    def content(self, read: FileContent) -> FileContent:
        """What was read of a file, without values."""
        if self._any is None:
            return read
        begun, cut = read.offset > 0, read.cut
        if read.text is not None:
            return read.model_copy(update={"text": _masked(read.text, self._names, begun, cut)})
        names = {_as_text(value.encode()): _as_text(name.encode()) for value, name in self._names.items()}
        data = _masked(_as_text(b64decode(read.data or "")), names, begun, cut)
        return read.model_copy(update={"data": b64encode(data.encode("latin-1")).decode()})

    def _excerpt(self, text: str) -> str:
        """An excerpt of a stream without values: where it was cut there may be parts of one on both sides."""
        parts = CUT.split(text)
        last = len(parts) - 1
        for at in range(0, last + 1, 2):
            parts[at] = _masked(parts[at], self._names, begun=at > 0, cut=at < last)
        return "".join(parts)

    def unfinished(self, text: str) -> int:
        """How many characters at the end of a text may be the beginning of a value."""
        return max((_shared(text, value, len(value) - 1) for value in self._values), default=0)


def _masked(text: str, names: Mapping[str, str], begun: bool, cut: bool) -> str:
    """A text without values, and without the part of one where it was `begun` before, or is `cut`."""
    spans = []
    for value, name in names.items():
        spans += [(found.start(), -len(value), name) for found in re.finditer(f"(?={re.escape(value)})", text)]
        spans += [(start, -length, name) for start, length in _parts(text, value, begun, cut) if length >= _PART]
    told, at = [], 0
    for start, length, name in sorted(spans):
        told += [text[at:start], name] if start >= at else []
        at = max(at, start - length)
    return "".join([*told, text[at:]])


def _parts(text: str, value: str, begun: bool, cut: bool) -> Iterator[tuple[int, int]]:
    """Where a part of a value stands at the beginning or the end of a text (start, length), or is all of it."""
    whole = text.strip(_REPLACED)
    first, last, most = text.find(whole), text.find(whole) + len(whole), len(value) - 1
    if begun:
        yield first, _shared(value, whole, most)
    if cut:
        length = _shared(whole, value, most)
        yield last - length, length
    if begun and cut and whole in value:
        yield first, len(whole)


def _shared(first: str, second: str, most: int) -> int:
    """How long the longest end of the first is, of `most` characters, with which the second begins."""
    lengths = range(min(len(first), len(second), most), 0, -1)
    return next((length for length in lengths if first.endswith(second[:length])), 0)


def _as_text(data: bytes) -> str:
    """A character for each byte."""
    return data.decode("latin-1")


class Telling:
    """Bytes of both streams as masked text, as they come; what may be the beginning of a value waits for the rest."""

    def __init__(self, mask: Mask, tell: Tell) -> None:
        self._mask = mask
        self._tell = tell
        self._decoders = {stream: getincrementaldecoder("utf-8")("replace") for stream in ("stdout", "stderr")}
        self._waits = dict.fromkeys(self._decoders, "")

    def __call__(self, stream: str, chunk: bytes) -> None:
        """A part of a stream."""
        text = self._waits[stream] + self._decoders[stream].decode(chunk)
        kept = len(text) - self._mask.unfinished(text)
        self._say(stream, text[:kept])
        self._waits[stream] = text[kept:]

    def end(self) -> None:
        """Both streams have ended."""
        for stream, decoder in self._decoders.items():
            self._say(stream, self._waits[stream] + decoder.decode(b"", final=True))
            self._waits[stream] = ""

    def _say(self, stream: str, text: str) -> None:
        if text:
            self._tell(stream, self._mask.text(text))
