"""Values of secrets in what comes out of a sandbox: their names stand there instead. Pure.

A program is given secrets and may print them; its output is journaled, shown to models and streamed to people. Values
shorter than a snapshot looks for are left as they are: they would be found by chance.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable, Mapping

from retinue.runs.sandboxes import ExecResult, FileContent
from retinue.sandbox.rules import SHORTEST_SECRET

Tell = Callable[[str, str], None]


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
        return done.model_copy(update={"stdout": self.text(done.stdout), "stderr": self.text(done.stderr)})

    def content(self, read: FileContent) -> FileContent:
        """What was read of a file, without values."""
        if self._any is None:
            return read
        if read.text is not None:
            return read.model_copy(update={"text": self.text(read.text)})
        data = b64decode(read.data or "")
        for value in self._values:
            data = data.replace(value.encode(), self._names[value].encode())
        return read.model_copy(update={"data": b64encode(data).decode()})

    def unfinished(self, text: str) -> int:
        """How many characters at the end of a text may be the beginning of a value."""
        longest = 0
        for value in self._values:
            for length in range(min(len(value) - 1, len(text)), longest, -1):
                if text.endswith(value[:length]):
                    longest = length
                    break
        return longest


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
