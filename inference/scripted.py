"""The scripted model: `scripted:FILE.jsonl` says for each run what the model decides, call by call.

Owns the file format (docs/models.md), the matching of runs to lines and the simulated latencies and faults.
It reads nothing but the request; the k-th call of a run (`request.turn`) gets the line's k-th decision.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from retinue.inference.prices import estimate_request, estimate_text
from retinue.inference.scripts import Decision, Fault, Script, load_scripts
from retinue.runs.contracts import Usage
from retinue.runs.errors import PermanentModelError, TransientModelError
from retinue.runs.messages import ModelProfile, ModelReply, ModelRequest, OnDelta, ToolCall

PROVIDER = "retinue"


@dataclass(frozen=True)
class _Lines:
    """The lines for one agent, or for any: by input id, by exact input, by a part of the input, the rest."""

    by_id: dict[str, Script] = field(default_factory=dict)
    by_input: dict[str, Script] = field(default_factory=dict)
    rest: list[Script] = field(default_factory=list)

    def find(self, request: ModelRequest) -> Script | None:
        """The line that fits best: id before exact input before part (first in the file) before default."""
        if request.input_id is not None and request.input_id in self.by_id:
            return self.by_id[request.input_id]
        if request.input_text in self.by_input:
            return self.by_input[request.input_text]
        for part, script in self.by_input.items():
            if part in request.input_text:
                return script
        return self.rest[0] if self.rest else None


class ScriptedModel:
    """A ModelPort that replays one file. How often a fault has struck is counted in this object only, by
    (run id, turn): another process, or a new object, counts from zero."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str | None, _Lines] = {}
        scripts = load_scripts(path)
        for script in scripts:
            self._index(script)
        self._max_micros = max((d.micros for script in scripts for d in script.decisions), default=0)
        self._struck: dict[tuple[str, int], int] = {}

    def profile(self, request: ModelRequest) -> ModelProfile:
        """Free unless the file names prices; the worst call is the dearest of the file."""
        decision = self._find_decision(request)
        told = decision.usage.input_tokens if decision and decision.usage else None
        return ModelProfile(
            provider=PROVIDER,
            name=self._name,
            free=self._max_micros == 0,
            max_micros=self._max_micros,
            input_tokens=estimate_request(request) if told is None else told,
        )

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """The decision of this run's turn, after its latency, unless its fault strikes."""
        started = perf_counter()
        decision = self._decide(request)
        await self._wait(decision, request)
        if decision.fault is not None:
            self._strike(decision.fault, request)
        text, calls = decision.text, _calls(decision, request.turn)
        first = None
        if on_delta is not None and text:
            first = (perf_counter() - started) * 1000
            for piece in _pieces(text):
                on_delta(piece)
        return ModelReply(
            text=text,
            tool_calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            usage=_usage(decision, request, text, calls),
            model=self._name,
            provider=PROVIDER,
            response_id=f"{request.run_id}:{request.turn}",
            raw=decision.model_dump(mode="json", exclude_unset=True),
            latency_ms=(perf_counter() - started) * 1000,
            first_token_ms=first,
        )

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def _name(self) -> str:
        return f"scripted:{self._path.name}"

    def _index(self, script: Script) -> None:
        lines = self._lines.setdefault(script.match.agent, _Lines())
        if script.match.input_id is not None:
            lines.by_id.setdefault(script.match.input_id, script)
        elif script.match.input is not None:
            lines.by_input.setdefault(script.match.input, script)
        else:
            lines.rest.append(script)

    def _find(self, request: ModelRequest) -> Script | None:
        for agent in (request.agent or None, None):
            script = self._lines[agent].find(request) if agent in self._lines else None
            if script is not None:
                return script
        return None

    def _find_decision(self, request: ModelRequest) -> Decision | None:
        script = self._find(request)
        if script is None or request.turn >= len(script.decisions):
            return None
        return script.decisions[request.turn]

    def _decide(self, request: ModelRequest) -> Decision:
        script = self._find(request)
        who = f"agent {request.agent!r}, input id {request.input_id!r}, input {request.input_text[:60]!r}"
        if script is None:
            raise PermanentModelError(
                f'{self._path}: no line matches {who}; add one, or a default line with "match": {{}}',
                code="script_missing",
            )
        if request.turn >= len(script.decisions):
            raise PermanentModelError(
                f"{self._path}:{script.line}: it holds {len(script.decisions)} decisions, but model call "
                f"{request.turn + 1} of {who} was made; add a decision, the last one should end the run",
                code="script_exhausted",
            )
        return script.decisions[request.turn]

    async def _wait(self, decision: Decision, request: ModelRequest) -> None:
        seconds = decision.latency_ms / 1000
        if seconds:
            await asyncio.sleep(min(seconds, request.timeout))
        if seconds > request.timeout:
            raise TransientModelError(
                f"{self._path}: the scripted latency of {seconds:g} s is above the call's timeout of "
                f"{request.timeout:g} s",
                code="timeout",
            )

    def _strike(self, fault: Fault, request: ModelRequest) -> None:
        place = (request.run_id, request.turn)
        struck = self._struck.get(place, 0)
        if fault.times is not None and struck >= fault.times:
            self._struck.pop(place, None)
            return
        if fault.times is not None:
            self._struck[place] = struck + 1
        message = f"{self._path}: scripted fault ({fault.kind}) in model call {request.turn + 1}"
        if fault.kind == "permanent":
            raise PermanentModelError(message, code="scripted")
        if fault.kind == "garbage":
            raise PermanentModelError(message, code="bad_reply")
        code = "timeout" if fault.kind == "timeout" else "scripted"
        raise TransientModelError(message, code=code, retry_after=fault.retry_after)


def _calls(decision: Decision, turn: int) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(
            id=call.id or f"call_{turn}_{index}",
            name=call.name,
            arguments=None if call.raw is not None else call.arguments,
            raw=call.raw if call.raw is not None else json.dumps(call.arguments),
        )
        for index, call in enumerate(decision.calls)
    )


def _usage(decision: Decision, request: ModelRequest, text: str, calls: tuple[ToolCall, ...]) -> Usage:
    spend = decision.usage
    read = spend.input_tokens if spend else None
    written = spend.output_tokens if spend else None
    return Usage(
        input_tokens=estimate_request(request) if read is None else read,
        output_tokens=estimate_text(text + "".join(c.raw for c in calls)) if written is None else written,
        micros=decision.micros,
    )


def _pieces(text: str) -> Iterator[str]:
    words = text.split(" ")
    yield words[0]
    for word in words[1:]:
        yield " " + word
