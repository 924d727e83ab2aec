"""Script files: the lines that a scripted model replays, validated with file, line, field and remedy.

Owns the format of `scripted:FILE.jsonl`. Knows no request and no run: which line answers which run is
decided in `inference.scripted`.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from retinue.runs.contracts import MICROS, Frozen, Json
from retinue.runs.errors import ConfigError

MAX_BYTES = 256 * 1024 * 1024
"""Largest script file that is read."""

_KINDS = ("tool_calls", "answer", "ask_human", "handoff", "stop")


class Match(Frozen):
    """Which runs a line is for: by input id, by the input's text or a part of it, by agent; {} is for all."""

    input_id: str | None = None
    input: str | None = Field(default=None, min_length=1)
    agent: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Match:
        if self.input_id is not None and self.input is not None:
            raise ValueError("name input_id or input, not both")
        return self


class ScriptedCall(Frozen):
    """A tool call. `raw` in place of `arguments` is text that is no JSON object, as a bad model writes it."""

    name: str = Field(min_length=1)
    arguments: dict[str, Json] = {}
    id: str | None = None
    raw: str | None = None


class Spend(Frozen):
    """Reported usage; tokens that are left out are estimated, `usd` is the price of the call."""

    input_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    usd: Decimal = Field(default=Decimal(0), ge=0, decimal_places=6)

    @field_validator("usd", mode="before")
    @classmethod
    def _no_binary_money(cls, value: object) -> object:
        return str(Decimal(repr(value))) if isinstance(value, float) else value


class Fault(Frozen):
    """A failure in place of the decision: of every attempt, or of the first `times` attempts."""

    kind: Literal["transient", "permanent", "timeout", "garbage"]
    retry_after: float | None = Field(default=None, ge=0)
    times: int | None = Field(default=None, ge=1)


class Decision(Frozen):
    """What the model decides in one call: exactly one of the five kinds, or a fault that never passes."""

    tool_calls: tuple[ScriptedCall, ...] | None = Field(default=None, min_length=1)
    answer: Json = None
    ask_human: str | None = None
    handoff: str | None = None
    artifact: Json = None
    stop: str | None = None
    latency_ms: float = Field(default=0.0, ge=0, le=3_600_000)
    usage: Spend | None = None
    fault: Fault | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Decision:
        kinds = [kind for kind in _KINDS if kind in self.model_fields_set]
        never_passes = self.fault is not None and self.fault.times is None
        if len(kinds) > 1 or (not kinds and not never_passes):
            found = " and ".join(kinds) or "none"
            raise ValueError(f"a decision is exactly one of {', '.join(_KINDS)}; found {found}")
        if "artifact" in self.model_fields_set and kinds != ["handoff"]:
            raise ValueError("artifact goes with handoff only")
        return self

    @property
    def text(self) -> str:
        """The answer as text: a string as it is, anything else as JSON."""
        if "answer" not in self.model_fields_set:
            return ""
        return self.answer if isinstance(self.answer, str) else json.dumps(self.answer, ensure_ascii=False)

    @property
    def calls(self) -> tuple[ScriptedCall, ...]:
        """Tool calls; the runtime's own decisions are calls of the tools that stand for them."""
        if self.ask_human is not None:
            return (ScriptedCall(name="ask_human", arguments={"question": self.ask_human}),)
        if self.handoff is not None:
            arguments = {"agent": self.handoff, "artifact": self.artifact}
            return (ScriptedCall(name="hand_off", arguments=arguments),)
        if self.stop is not None:
            return (ScriptedCall(name="stop", arguments={"reason": self.stop}),)
        return self.tool_calls or ()

    @property
    def micros(self) -> int:
        """The price of the call in micro-dollars."""
        return int(self.usage.usd * MICROS) if self.usage else 0


class Script(Frozen):
    """One line of a script file. `line` counts from 1."""

    match: Match = Match()
    decisions: tuple[Decision, ...] = Field(min_length=1)
    line: int = 0


def load_scripts(path: Path) -> tuple[Script, ...]:
    """All lines of a file; blank lines are passed over. ConfigError names file, line, field and remedy."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; split the script")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the script: {error.strerror}; check the path after 'scripted:'"
        ) from error
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    scripts = tuple(_script(path, number, line) for number, line in enumerate(lines, 1) if line.strip())
    if not scripts:
        raise ConfigError(f"{path}: the script is empty; give it one JSON object a line")
    return scripts


def _script(path: Path, number: int, line: bytes) -> Script:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()  # half a character can be escaped, and not be kept
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}:{number}: not a JSON object in UTF-8: {error}; give one object on each line"
        ) from error
    if not isinstance(found, dict) or "line" in found:
        raise ConfigError(f'{path}:{number}: expected {{"match": ..., "decisions": [...]}} and nothing else')
    try:
        return Script.model_validate({**found, "line": number})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the line"
        raise ConfigError(
            f"{path}:{number}: {place}: {first['msg']} (found {str(first['input'])[:80]!r}); "
            "the format is described in docs/models.md"
        ) from error
