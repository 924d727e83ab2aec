"""Remote tools: what servers offer, under this project's contract.

Owns how arguments reach a server's tool and how what comes back becomes a result. A tool is made of its pin and its
override, without any connection. Knows no protocol: the port to connections does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from string import Template
from typing import Any

from pydantic import TypeAdapter

from retinue.runs.capabilities import Caller, CallResult, Capability
from retinue.runs.contracts import Json
from retinue.runs.errors import ConfigError, PermanentError
from retinue.runs.sessions import Link, Pause, Resumption, Token, Wire
from retinue.sessions.calls import MAX_MESSAGE
from retinue.sessions.catalog import Arguments, Invocation
from retinue.sessions.complaints import explain_remote_arguments, explain_remote_output
from retinue.sessions.connections import Connections, RemoteResult
from retinue.sessions.pins import PinnedServer, PinnedTool, capability_name
from retinue.sessions.results import LARGEST, cap_result, weigh
from retinue.sessions.schemas import Schema, TooMuchWork
from retinue.sessions.servers import Probe, Server, ToolOverride

SPARE = 5.0
"""Seconds beyond its timeout and the time to connect after which a call is given up by the gateway."""

LARGE = 64 * 1024
"""Bytes of a result that are judged on the event loop."""

_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_VERSION = 12
_HIDDEN = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    r"\U000e0000-\U000e007f]"
)


class Alone:
    """A link without a run: for probes and trials, which begin anew and keep nothing. Implements `runs.sessions.Link`."""

    @property
    def resumption(self) -> Resumption | None:
        """Nothing was begun before."""
        return None

    def opened(self, wire: Wire) -> None:
        """Nobody keeps it."""

    def lost(self, cause: str) -> None:
        """Nobody keeps it."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Nobody follows it."""

    async def keep(self, token: Token | None) -> None:
        """What cannot be kept cannot be gone on with."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a probe found, in the place of a result."""

    value: Json


class RemoteTool:
    """A tool of a server. Implements `sessions.catalog.Tool`."""

    def __init__(
        self, server: Server, name: str, pins: PinnedServer, connections: Connections, *, probe_of: str = ""
    ) -> None:
        """ConfigError when the override does not fit the pinned definition."""
        self.name = name
        self.capability = build_capability(server, name, pins.tools[name])
        self.origin = f"{name} of {server.name} ({server.address})"
        self._server = server
        self._pinned = pins.pinned
        self._connections = connections
        self._override = server.override(name)
        self._input = Schema(self.capability.input_schema)
        output = pins.tools[name].output_schema
        self._output = Schema(output) if output else None

    def __repr__(self) -> str:
        return f"<remote tool {self.capability.name!r}: {self.origin}>"

    def accept(self, arguments: Arguments) -> Arguments:
        """See `Tool.accept`. Defaults are the server's to fill in."""
        if not isinstance(arguments, dict):
            raise PermanentError(f"tool {self.capability.name!r}: send a JSON object.", code="invalid_arguments")
        key = self._override.key_argument
        if key is not None and key in arguments:
            problem = f"argument {key!r} is given the idempotency key by the runtime: leave it out"
            raise PermanentError(f"tool {self.capability.name!r}: {problem}.", code="invalid_arguments")
        try:
            problems = self._input.problems(arguments)
        except TooMuchWork as error:
            problem = f"the arguments cannot be checked against its schema ({error}): send less, or less deeply nested"
            raise PermanentError(f"tool {self.capability.name!r}: {problem}.", code="invalid_arguments") from None
        if problems:
            said = explain_remote_arguments(self.capability.name, self._input.judged, problems)
            raise PermanentError(said, code="invalid_arguments")
        return arguments

    def invoke(self, arguments: Arguments, caller: Caller, link: Link | None) -> Invocation:
        """See `Tool.invoke`."""
        given = dict(arguments)
        if self._override.key_argument is not None:
            given[self._override.key_argument] = caller.key

        async def start() -> object:
            outcome = await self._call(self.name, given, caller, link)
            return outcome if isinstance(outcome, Pause) else await _aside(outcome, self._shape_result)

        return Invocation(start, blocking=False, spare=self._server.connect_seconds + SPARE)

    def invoke_probe(self, arguments: Arguments, caller: Caller) -> Invocation | None:
        """See `Tool.invoke_probe`."""
        probe = self._override.probe
        if probe is None:
            return None
        given = fill(probe.arguments, {**arguments, "key": caller.key})

        async def start() -> object:
            outcome = await self._call(probe.tool, given, caller, None)
            if isinstance(outcome, Pause):
                return outcome
            found = found_by(probe, outcome, f"{self._server.name}.{probe.tool}")
            return None if found is None else await _aside(_Found(found), self._shape_found)

        return Invocation(start, blocking=False, spare=self._server.connect_seconds + SPARE)

    def shape(self, outcome: object) -> CallResult | Pause:
        """See `Tool.shape`. The call has shaped it already, aside from the event loop where it is large."""
        if isinstance(outcome, CallResult | Pause):
            return outcome
        raise PermanentError(f"tool {self.capability.name!r} ended without a result.", code="invalid_output")

    async def _call(self, tool: str, given: Arguments, caller: Caller, link: Link | None) -> RemoteResult | Pause:
        outcome = await self._connections.call(self._server, tool, given, caller, link or Alone(), self._pinned)
        if isinstance(outcome, Pause) and link is None:
            asked = "; ".join(question.message[:MAX_MESSAGE] for question in outcome.questions)
            raise PermanentError(
                f"tool {tool!r} of {self._server.name} asks something, and there is no run that could pass it on: {asked}",
                code="asked",
            )
        return outcome

    def _shape_result(self, result: RemoteResult) -> CallResult:
        if result.is_error:
            said = _text_of(result) or "the server says that it failed, and not why"
            raise PermanentError(f"tool {self.capability.name!r} failed: {said[:MAX_MESSAGE]}", code="raised")
        if result.structured is None:
            self._require_structure()
            return cap_result(self.capability, _ANY, _plain_value(result))
        self._judge(result.structured)
        return cap_result(self.capability, _ANY, result.structured)

    def _shape_found(self, found: _Found) -> CallResult:
        return cap_result(self.capability, _ANY, found.value)

    def _require_structure(self) -> None:
        if self._output is not None and not self._output.reason:
            self._refuse(f"tool {self.capability.name!r} has an output schema and returned no structured result.")

    def _judge(self, value: Json) -> None:
        if self._output is None or weigh(value, LARGEST) > LARGEST:
            return
        try:
            problems = self._output.problems(value)
        except TooMuchWork as error:
            self._refuse(f"the result of tool {self.capability.name!r} cannot be checked against its schema ({error}).")
        if problems:
            self._refuse(explain_remote_output(self.capability.name, problems))

    def _refuse(self, problem: str) -> None:
        happened = " The call was made: its effect has happened." if self.capability.side_effect == "write" else ""
        raise PermanentError(f"{problem} Tell whoever runs {self._server.name}.{happened}", code="invalid_output")
