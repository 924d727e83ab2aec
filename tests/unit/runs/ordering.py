"""Runs that call the desk, a server that asks back, and what a person answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.crash.outside import OUTSIDE
from tests.doubles import desk
from tests.doubles.worlds import ALLOW_ALL, World
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.control import SessionQuery, SessionRecord
from retinue.runs.definitions import workflow
from retinue.runs.errors import PermanentError, SideEffectUnknown
from retinue.runs.journal import AnyEntry, Record
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway

ANSWERS: dict[str, Json] = {"terms": {"action": "accept"}, "size": {"size": 3, "gift": True}, "red": {"colour": "red"}}


ASK_ABOUT_NOTES = (
    ALLOW_ALL + '@id("ask") @outcome("approval") @reason("notes need a yes")'
    ' forbid (principal, action == Action::"capability", resource == Capability::"desk__note");'
)


@workflow
async def orders(ctx: Context, text: str) -> Any:
    return await ctx.call("desk__order", text=text)


@workflow
async def works(ctx: Context, names: list[str]) -> list[Any]:
    done: list[Any] = []
    for name in names:
        try:
            done.append(await ctx.call(f"desk__{name}", text="it"))
        except (PermanentError, SideEffectUnknown) as error:
            done.append(type(error).__name__)
    return done


@workflow
async def pages(ctx: Context, most: int, state: dict[str, int] | None = None) -> int:
    state = state or {"page": 0}
    await ctx.call("desk__note", text=f"page {state['page']}")
    if state["page"] == most:
        return most
    await ctx.checkpoint("page", {"page": state["page"] + 1})


async def world_with_desk(make: Make, folder: Path, *tools: desk.Remote, policy: str = ALLOW_ALL) -> World:
    """A world with the desk's tools, and its log in a folder."""
    OUTSIDE.enter(folder, 1)
    world = await make(orders, works, pages, policy=policy)
    gate = world.services.gate
    world.use(gateway=CapabilityGateway(Catalog(tools or desk.TOOLS), gate, clock=world.clock))
    return world


async def asked(world: World) -> list[PendingRequest]:
    """Drive until everything rests; what is asked."""
    await world.settle()
    return await world.store.requests()


async def say(world: World, request: PendingRequest, value: Json) -> None:
    await world.store.resolve(request.request_id, "answered", "ben", world.clock(), value)


async def session_of(world: World) -> SessionRecord:
    """The newest session there is."""
    return (await world.store.sessions(SessionQuery()))[0]


async def moves(world: World, run_id: str) -> list[tuple[str | None, str]]:
    """The moves of the run's sessions as they are journaled: before and after."""
    entries = [e for e in await world.entries(run_id) if isinstance(e, Record) and e.topic == "session"]
    return [(e.facts["before"], e.facts["status"]) for e in entries if e.facts["before"] != e.facts["status"]]


def is_kept(entry: AnyEntry) -> bool:
    return isinstance(entry, Record) and entry.topic == "continuation" and entry.facts["event"] == "kept"


async def answer_all(world: World, run_id: str, crash: bool) -> Json:
    """Answer everything the desk asks, perhaps with a crash between any two answers; the output."""
    for _ in range(10):
        if crash:
            await world.settle()
            await world.crash()
        open_ones = await asked(world)
        if not open_ones and not await world.wait_out():
            break
        if not open_ones:
            continue
        request = open_ones[0]
        kind = request.asked["kind"]
        form = "red" if kind == "form" and "colour" in request.asked["schema"]["properties"] else "size"
        await say(world, request, ANSWERS["terms" if kind == "url" else form])
    return (await world.finish(run_id)).value
