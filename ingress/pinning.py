"""Pinning servers: what they list now beside what was approved of them, and trials of their tools.

Connects; changes nothing but the lock, and that only when told. Knows no terminal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from difflib import get_close_matches

from retinue.host import clock
from retinue.host.composition import load_project
from retinue.host.remotes import LateConnections
from retinue.host.settings import FILE, Settings
from retinue.runs.capabilities import Caller, CallResult
from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import EffectError, InvalidInput, UnknownName
from retinue.runs.sessions import Pause
from retinue.runs.tracing import traceparent
from retinue.sessions.connections import Listing
from retinue.sessions.pins import Change, PinnedServer, changes, client_capabilities, pin, read_intact
from retinue.sessions.servers import Server

_SECOND = 1_000_000_000


class Comparison(Frozen):
    """A server as it is now (`pinned`: what an approval would write) beside what was approved of it.

    `problem` says why it could not be asked; then there is nothing to compare.
    """

    server: str
    changes: tuple[Change, ...] = ()
    known: PinnedServer | None = None
    pinned: PinnedServer | None = None
    problem: str = ""
    seconds: float = 0.0

    @property
    def same(self) -> bool:
        """Whether an approval would change nothing."""
        if self.known is None or self.pinned is None:
            return False
        return (
            not self.changes and self.known.left_out == self.pinned.left_out and self.known.client == self.pinned.client
        )


class Trial(Frozen):
    """What a call without a run returned, and how long (s) it took."""

    capability: str
    value: Json
    size: int
    cut: bool
    seconds: float


def server_named(settings: Settings, name: str) -> Server:
    """A declared server. UnknownName with close matches."""
    servers = settings.servers
    if name not in servers:
        near = get_close_matches(name, servers, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"declared are: {', '.join(servers) or 'none'}"
        raise UnknownName(f"no server {name!r} is declared under `capabilities:` in {FILE}: {hint}")
    return servers[name]


async def compare(settings: Settings, servers: Iterable[Server]) -> list[Comparison]:
    """Ask servers for their lists, all at once, and lay them beside the lock."""
    lock = read_intact(settings.folder)
    async with _connections() as connections:

        async def one(server: Server) -> Comparison:
            known = lock.servers.get(server.name)
            began = time.monotonic()
            try:
                listing = await connections.list_tools(server)
            except EffectError as error:
                return Comparison(server=server.name, known=known, problem=str(error))
            seconds = round(time.monotonic() - began, 3)
            return _beside(settings, server, known, listing).model_copy(update={"seconds": seconds})

        return list(await asyncio.gather(*map(one, servers)))


def _beside(settings: Settings, server: Server, known: PinnedServer | None, listing: Listing) -> Comparison:
    at = datetime.fromtimestamp(clock.now_ns() // _SECOND, tz=UTC).isoformat().replace("+00:00", "Z")
    try:
        found = pin(server, listing, settings.principal, at)
    except InvalidInput as error:
        return Comparison(server=server.name, known=known, problem=str(error))
    return Comparison(server=server.name, changes=tuple(changes(known, found)), known=known, pinned=found)


async def call_once(settings: Settings, server: str, tool: str, arguments: dict[str, Json]) -> Trial:
    """Call a reading tool of a server, through the gate, without a run.

    InvalidInput: it is no reading tool, or the policy does not allow the call. What the call raises passes through.
    """
    project = load_project(settings)
    gateway = project.gateway
    name = tool if tool.startswith(f"{server}__") else f"{server}__{tool}"
    call = gateway.prepare(name, arguments)
    if call.capability.side_effect != "read":
        raise InvalidInput(
            f"{name} is said to {call.capability.side_effect}, and a trial leaves no journal: call it from a run, or "
            f"say `{tool}: {{side_effect: read}}` under capabilities.{server}.tools if it only reads"
        )
    caller = _nobody(settings, call.capability.timeout)
    decision = gateway.decide(call, caller, None)
    if decision.outcome != "allow":
        raise InvalidInput(f"the policy does not let {caller.principal_id} try {name}: {decision.reason}")
    began = time.monotonic()
    try:
        result = await gateway.execute(call, caller)
    finally:
        await gateway.close()
    return _trial(name, result, time.monotonic() - began)


def _trial(name: str, result: CallResult | Pause, seconds: float) -> Trial:
    if isinstance(result, Pause):
        raise InvalidInput(f"{name} asks something, and a trial has nobody to ask: call it from a run")
    return Trial(capability=name, value=result.value, size=result.size, cut=result.cut, seconds=round(seconds, 3))


def _nobody(settings: Settings, timeout: float) -> Caller:
    run_id = clock.new_run_id()
    return Caller(
        run_id=run_id,
        root_run_id=run_id,
        tenant_id=settings.tenant,
        principal_id=settings.principal,
        agent="retinue.capabilities",
        route="cli",
        depth=0,
        key=run_id,
        epoch=0,
        deadline=clock.now_ns() + int(timeout * _SECOND),
        traceparent=traceparent(clock.new_trace_id(), clock.new_span_id()),
        budget={"hops": 1},
    )


def stale_client(server: Server, known: PinnedServer) -> bool:
    """Whether the pins were made when Retinue told the server that it can something else."""
    return known.client != client_capabilities(server)


@asynccontextmanager
async def _connections() -> AsyncIterator[LateConnections]:
    connections = LateConnections()
    try:
        yield connections
    finally:
        await connections.close()
