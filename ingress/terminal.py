"""Where a command speaks: results on stdout, notes on stderr, everything as JSON when asked.

Owns the streams and the making harmless of text from elsewhere. Knows no run.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import to_jsonable_python

from retinue.host.settings import Settings, load_settings
from retinue.runs.contracts import Json
from retinue.runs.errors import RetinueError

_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}") | {9: "\t", 10: "\n", 13: ""}


@dataclass(frozen=True, slots=True)
class Terminal:
    """One command's surroundings: whether it speaks JSON, and which project it is about."""

    as_json: bool = False
    project: Path | None = None

    @property
    def talks(self) -> bool:
        """Whether a person can be asked and shown what moves."""
        return not self.as_json and sys.stdin.isatty() and sys.stderr.isatty()

    def settings(self) -> Settings:
        """The project's settings. ConfigError."""
        return load_settings(self.project)

    def give(self, value: object, text: str | None = None) -> None:
        """The result: `value` as one line of JSON, or `text` for people (None: nothing)."""
        if self.as_json:
            write(as_line(value) + "\n")
        elif text is not None:
            write(clean(text).rstrip("\n") + "\n")

    def piece(self, text: str) -> None:
        """A part of a result, as it comes; people only."""
        if not self.as_json:
            write(clean(text))

    def aside(self, text: str) -> None:
        """Text on its way, beside the result; people only."""
        if not self.as_json:
            print(clean(text), end="", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """What happens beside the result; people only."""
        if not self.as_json:
            print(clean(text), file=sys.stderr, flush=True)


class OutputLost(RetinueError):
    """stdout takes no more, or there is none; the message says why."""


def write(text: str | bytes) -> None:
    """To stdout, at once. Characters the terminal cannot show are replaced. OutputLost; BrokenPipeError."""
    if sys.stdout is None:
        raise OutputLost("the answer is lost: the command was started without a standard output (`>&-`)")
    try:
        _write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(
            f"the answer is lost, standard output took only a part of it: {error.strerror}; free space or send it "
            "elsewhere, and ask again"
        ) from error


def _write(text: str | bytes) -> None:
    if isinstance(text, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def as_line(value: object) -> str:
    """A value as one line of JSON; money and times of pydantic models as text."""
    return json.dumps(to_jsonable_python(value), ensure_ascii=False)


def as_block(value: Json) -> str:
    """A value as JSON for people."""
    return json.dumps(to_jsonable_python(value), ensure_ascii=False, indent=2)


def clean(text: str) -> str:
    """Text without control characters: what a model or a file says must not steer a terminal."""
    return text.translate(_CONTROLS)
