"""The gateway: the one door to every capability.

Owns the way from a name and arguments to a valid result: validate, digest, ask the gate, call within the
timeout and the caller's deadline, validate and cap what comes back. Knows no journal, no budget and no retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Collection
from hashlib import blake2b

from retinue.runs.capabilities import Caller, CallResult, Capability, Prepared, concerned
from retinue.runs.contracts import Json
from retinue.runs.errors import EffectError, PermanentError
from retinue.runs.gate import Approval, Gate, GateDecision, GateRequest
from retinue.runs.piecewise import weigh
from retinue.runs.sessions import Link, Pause
from retinue.sessions.calls import Calls
from retinue.sessions.catalog import Catalog, Tool
from retinue.sessions.connections import Connections

SECOND = 1_000_000_000
"""Nanoseconds."""

LARGE = 1024 * 1024
"""Bytes of an outcome that are read on the event loop."""

RELEASE = 10.0
"""Seconds that letting go of a run's connections may take."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class CapabilityGateway:
    """Implements `runs.capabilities.Gateway`. Belongs to one event loop; `clock` gives Unix nanoseconds."""

    def __init__(
        self, catalog: Catalog, gate: Gate, *, clock: Callable[[], int], connections: Connections | None = None
    ) -> None:
        self._catalog = catalog
        self._gate = gate
        self._connections = connections
        self._clock = clock
        self._calls = Calls()

    def capability(self, name: str) -> Capability:
        """The specification; UnknownName with close matches otherwise."""
        return self._catalog.get(name).capability

    def prepare(self, name: str, arguments: dict[str, Json]) -> Prepared:
        """Validate arguments and fill in defaults, so that rules and journal see what the tool will see.

        Raises UnknownName, or PermanentError `invalid_arguments` naming field, value and remedy.
        """
        tool = self._catalog.get(name)
        accepted = tool.accept(arguments)
        return Prepared(tool.capability, accepted, digest_call(tool.capability, accepted))

    def decide(self, call: Prepared, caller: Caller, approval: Approval | None) -> GateDecision:
        """Ask the gate whether this caller may make this call now."""
        capability, judged = call.capability, concerned(call.capability, caller)
        return self._gate.decide(
            GateRequest(
                stage=judged.stage,
                run_id=caller.run_id,
                tenant=caller.tenant_id,
                principal=caller.principal_id,
                agent=caller.agent,
                route=caller.route,
                depth=caller.depth,
                resource=judged.resource,
                version=capability.version,
                side_effect=judged.side_effect,
                idempotency=capability.idempotency if capability.side_effect == "write" else None,
                sensitivity=capability.sensitivity,
                rollout=capability.stage,
                digest=call.digest,
                arguments=call.arguments,
                budget=caller.budget,
                facts=caller.facts,
                approval=approval,
                now=0 if approval is None else self._clock(),
            )
        )

    async def execute(self, call: Prepared, caller: Caller, link: Link | None = None) -> CallResult | Pause:
        """Make the call within its timeout and the caller's deadline, or go on with it.

        Raises TransientError (`timeout`, `saturated`, `lost`) or PermanentError (`deadline`: not called; `raised`,
        `invalid_output`, `too_large`, `version`), or what the tool itself raised of these two classes.
        """
        tool = self._tool_of(call)
        left = (caller.deadline - self._clock()) / SECOND
        if left <= 0:
            problem = f"the caller's deadline passed {-left:.3g} s ago"
            raise PermanentError(f"tool {call.capability.name!r} was not called: {problem}.", code="deadline")
        seconds = min(call.capability.timeout, left)
        invocation = tool.invoke(call.arguments, caller, link)
        outcome = await self._calls.make(call.capability.name, invocation, seconds + invocation.spare)
        return await _shaped(tool, outcome)

    async def probe(self, call: Prepared, caller: Caller) -> CallResult | None:
        """Whether a reconcilable call with this key has happened: its result, or None when it has not.

        Bounded by the capability's timeout, not by the caller's deadline: an absence counts only after it.
        Raises as `execute` does, and PermanentError `no_probe` for a tool that cannot be asked.
        """
        tool = self._tool_of(call)
        invocation = tool.invoke_probe(call.arguments, caller)
        if invocation is None:
            raise PermanentError(
                f"tool {call.capability.name!r} is {call.capability.idempotency} and has no probe. "
                "Declare idempotency='reconcilable' with a probe, or let a person decide.",
                code="no_probe",
            )
        seconds = call.capability.timeout + invocation.spare
        outcome = await self._calls.make(call.capability.name, invocation, seconds)
        return None if outcome is None else _answered(call.capability, await _shaped(tool, outcome))

    async def release(self, run_id: str, ended: bool) -> None:
        """This process executes a run no longer: let go of the connections that only it used. Raises nothing."""
        if self._connections is not None:
            with contextlib.suppress(TimeoutError, EffectError):
                async with asyncio.timeout(RELEASE):
                    await self._connections.release(run_id, ended)

    def end_session(self, run_id: str, server: str) -> None:
        """The run's session with this server was closed: let go of what only it used there."""
        if self._connections is not None:
            self._connections.end_session(run_id, server)

    def held_sessions(self) -> Collection[tuple[str, str]]:
        """(run, server) of what this process holds for single runs."""
        return self._connections.held_sessions() if self._connections is not None else ()

    async def close(self) -> None:
        """Close all connections, within a bound."""
        if self._connections is not None:
            with contextlib.suppress(TimeoutError, EffectError):
                async with asyncio.timeout(RELEASE):
                    await self._connections.close()

    def _tool_of(self, call: Prepared) -> Tool:
        tool = self._catalog.get(call.capability.name)
        if tool.capability.version != call.capability.version:
            raise PermanentError(
                f"tool {call.capability.name!r} has version {tool.capability.version!r} here, this call "
                f"{call.capability.version!r}. Run it where that version is, or call it anew.",
                code="version",
            )
        return tool


async def _shaped(tool: Tool, outcome: object) -> CallResult | Pause:
    """Read an outcome; a large one in a thread, since a megabyte is milliseconds of work. A tool far away has read its
    own already."""
    if isinstance(outcome, CallResult | Pause):
        return tool.shape(outcome)
    if weigh(outcome, LARGE) > LARGE:
        return await asyncio.to_thread(tool.shape, outcome)
    return tool.shape(outcome)


def _answered(capability: Capability, result: CallResult | Pause) -> CallResult:
    if isinstance(result, Pause):
        raise PermanentError(f"the probe of {capability.name!r} asks a question instead of answering.", code="no_probe")
    return result


def digest_call(capability: Capability, arguments: dict[str, Json]) -> str:
    """Hash of name, version and arguments as canonical JSON: what approvals bind and replay compares."""
    try:
        text = _CANONICAL.encode([capability.name, capability.version, arguments])
    except ValueError as error:
        raise PermanentError(
            f"tool {capability.name!r}: arguments are not JSON: {error}. Send finite numbers.",
            code="invalid_arguments",
        ) from None
    return blake2b(text.encode(), digest_size=16).hexdigest()
