"""Remote tools: what servers offer, under this project's contract.

Owns how arguments reach a server's tool and how what comes back becomes a result. A tool is made of its pin and its
override, without any connection. Knows no protocol: the port to connections does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from pydantic_core import PydanticSerializationError, from_json, to_json

from retinue.runs.capabilities import Caller, CallResult, Capability
from retinue.runs.contracts import Json
from retinue.runs.errors import ConfigError, PermanentError
from retinue.runs.piecewise import weigh
from retinue.runs.sessions import Link, Pause, Resumption, Token, Wire
from retinue.sessions.calls import MAX_MESSAGE
from retinue.sessions.catalog import Arguments, Invocation
from retinue.sessions.complaints import explain_remote_arguments, explain_remote_output
from retinue.sessions.connections import Connections, RemoteResult
from retinue.sessions.pins import PinnedServer, PinnedTool, capability_name
from retinue.sessions.probing import fill, found_by, placeholders
from retinue.sessions.results import ANY, LARGEST, cap_blocks, cap_result
from retinue.sessions.schemas import Schema, TooMuchWork
from retinue.sessions.servers import Server, ToolOverride

SPARE = 5.0
"""Seconds beyond its timeout and the time to connect after which a call is given up by the gateway."""

LARGE = 64 * 1024
"""Bytes of a result that are judged on the event loop."""

_VERSION = 12
_LONGEST = 8_000
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Alone:
    """A link without a run, for probes and trials: they begin anew and keep nothing. Implements `sessions.Link`."""

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


_Outcome = TypeVar("_Outcome", RemoteResult, _Found)


class RemoteTool:
    """A tool of a server. Implements `sessions.catalog.Tool`."""

    def __init__(self, server: Server, name: str, pins: PinnedServer, connections: Connections) -> None:
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
        name, key = self.capability.name, self._override.key_argument
        try:
            given: Arguments = from_json(to_json(arguments))
            problems = self._input.problems(given)
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            self._reject(f"tool {name!r}: arguments are not JSON: {error}. Send a JSON object.")
        except TooMuchWork as error:
            self._reject(f"tool {name!r}: the arguments cannot be checked against its schema ({error}): send less.")
        if key is not None and key in given:
            self._reject(f"tool {name!r}: argument {key!r} is given the idempotency key by the runtime: leave it out.")
        if problems:
            self._reject(explain_remote_arguments(name, self._input.judged, problems))
        return given

    def _reject(self, problem: str) -> NoReturn:
        raise PermanentError(problem, code="invalid_arguments")

    def invoke(self, arguments: Arguments, caller: Caller, link: Link | None) -> Invocation:
        """See `Tool.invoke`."""
        given = dict(arguments)
        if self._override.key_argument is not None:
            given[self._override.key_argument] = caller.key

        async def start() -> object:
            outcome = await self._call(self.name, given, caller, link)
            return outcome if isinstance(outcome, Pause) else await _aside(outcome, self._shape_result)

        return Invocation(start, blocking=False, spare=self._server.connect_seconds + SPARE, ours=True)

    def invoke_probe(self, arguments: Arguments, caller: Caller) -> Invocation | None:
        """See `Tool.invoke_probe`."""
        probe = self._override.probe
        if probe is None:
            return None
        given = fill(probe.arguments, {**arguments, "key": caller.key})

        async def start() -> object:
            outcome = await self._call(probe.tool, given, caller, None)
            if isinstance(outcome, Pause):  # never: there is no link
                return outcome
            found = found_by(probe, outcome, f"{self._server.name}.{probe.tool}")
            return None if found is None else await _aside(_Found(found), self._shape_found)

        return Invocation(start, blocking=False, spare=self._server.connect_seconds + SPARE, ours=True)

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
                f"tool {tool!r} of {self._server.name!r} asks, and there is no run that could pass it on: {asked}",
                code="asked",
            )
        return outcome

    def _shape_result(self, result: RemoteResult) -> CallResult:
        if result.is_error:
            said = result.text or "the server says that it failed, and not why"
            raise PermanentError(f"tool {self.capability.name!r} failed: {said[:MAX_MESSAGE]}", code="raised")
        if result.structured is None:
            if self._output is not None:
                self._refuse(f"tool {self.capability.name!r} has an output schema and returned no structured result.")
            return cap_blocks(self.capability, result)
        self._judge(result.structured)
        return cap_result(self.capability, ANY, result.structured)

    def _shape_found(self, found: _Found) -> CallResult:
        return cap_result(self.capability, ANY, found.value)

    def _judge(self, value: Json) -> None:
        if self._output is None or weigh(value, LARGEST) > LARGEST:
            return
        try:
            problems = self._output.problems(value)
        except TooMuchWork as error:
            self._refuse(f"the result of tool {self.capability.name!r} cannot be checked against its schema ({error}).")
        if problems:
            self._refuse(explain_remote_output(self.capability.name, problems))

    def _refuse(self, problem: str) -> NoReturn:
        happened = " The call was made: its effect has happened." if self.capability.side_effect == "write" else ""
        raise PermanentError(f"{problem} Tell whoever runs {self._server.name!r}.{happened}", code="invalid_output")


async def _aside(outcome: _Outcome, shape: Callable[[_Outcome], CallResult]) -> CallResult:
    """Read an outcome; a large one in a thread, since judging it may take seconds."""
    return await asyncio.to_thread(shape, outcome) if weigh(outcome, LARGE) > LARGE else shape(outcome)


def build_capability(server: Server, name: str, pinned: PinnedTool) -> Capability:
    """The contract of a tool: what its server says of its shape, what the project says of everything else.

    ConfigError when the override names arguments that the tool does not have.
    """
    override = server.override(name)
    schema: dict[str, Json] = {**pinned.input_schema, "type": "object"}
    known = schema.get("properties")
    names = set(known) if isinstance(known, dict) else set()
    _check_names(server, name, override, names)
    if override.key_argument is not None:
        schema = _without(schema, override.key_argument)
    return Capability(
        name=capability_name(server.name, name),
        description=_for_models(override.description or pinned.description) or name,
        input_schema=schema,
        output_schema=pinned.output_schema,
        side_effect=override.side_effect,
        idempotency=override.idempotency or "at_most_once",
        sensitivity=override.sensitivity,
        timeout=override.timeout or server.timeout,
        max_bytes=override.max_bytes or server.max_bytes,
        owner=override.owner,
        version=pinned.sha256[:_VERSION],
        stage=override.stage,
        source=f"mcp:{server.name}",
    )


def _check_names(server: Server, name: str, override: ToolOverride, known: set[str]) -> None:
    where = f"retinue.yaml: capabilities.{server.name}.tools.{name}"
    takes = f"it takes {', '.join(sorted(known)) or 'nothing'}"
    if override.key_argument is not None and override.key_argument not in known:
        raise ConfigError(f"{where}.key_argument: the tool has no argument {override.key_argument!r}; {takes}")
    wanted = placeholders(override.probe.arguments) if override.probe is not None else set()
    for missing in sorted(wanted - known - {"key"}):
        raise ConfigError(f"{where}.probe.arguments: ${missing} is no argument of the tool; {takes}, and there is $key")


def _without(schema: dict[str, Json], argument: str) -> dict[str, Json]:
    required = schema.get("required")
    kept = {**schema, "properties": {name: part for name, part in schema["properties"].items() if name != argument}}
    if isinstance(required, list):
        kept["required"] = [name for name in required if name != argument]
    return kept


def _for_models(text: str) -> str:
    """A description without what people who reviewed it could not see, and not endless."""
    shown = ("" if not each.isprintable() and not each.isspace() else each for each in _ESCAPES.sub("", text))
    return "".join(shown)[:_LONGEST].strip()
