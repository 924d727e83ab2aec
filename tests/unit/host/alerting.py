"""A desk of alerts over a world whose runs wait, fail and spend as they are told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.doubles.worlds import World, world

from retinue.host.alerting import AlertDesk
from retinue.host.settings import Settings
from retinue.runs.alerts import Alert
from retinue.runs.context import Context
from retinue.runs.definitions import agent, workflow
from retinue.sessions.native import tool
from retinue.store.sqlite import SqliteStore

HOUR = 3_600.0
POLICY = '@id("rest") permit (principal, action, resource) unless { action == Action::"doubt" };'
"""No rule speaks of doubts: a person resolves them."""

sick: list[Exception] = []


@tool(side_effect="write", idempotency="at_most_once")
async def mail(text: str) -> str:
    """Mails; fails as it is told to."""
    if sick:
        raise sick[0]
    return text


@tool(side_effect="read")
async def look(at: str) -> str:
    """Looks; fails as it is told to."""
    if sick:
        raise sick[0]
    return at


clerk = agent("clerk", "Works.", tools=[mail, look])


@workflow
async def asks(ctx: Context, _: Any) -> Any:
    return await ctx.ask("which region?")


@workflow
async def passes_on(ctx: Context, _: Any) -> Any:
    return await ctx.ask("which region?", to="ops", escalate=("10m", "lead"))


@workflow
async def listens(ctx: Context, _: Any) -> Any:
    return await ctx.event("paid")


@workflow
async def mails(ctx: Context, _: Any) -> Any:
    return await ctx.call("mail", text="hello")


@workflow
async def looks(ctx: Context, _: Any) -> Any:
    return await ctx.call("look", at="the shelf")


@workflow
async def spends(ctx: Context, many: int) -> Any:
    if many:
        found = await ctx.map(spends, [0] * many)
        return [branch.reason for branch in found]
    if not sick:
        return "done"
    raise sick[0]


DEFINITIONS = (clerk, asks, passes_on, listens, mails, looks, spends)


class Watch:
    """A desk over a world, on the world's clock; `projected` is how far the trace tables are."""

    def __init__(self, world: World, store: SqliteStore, **alerts: Any) -> None:
        self.world = world
        self.store = store
        self.projected = 1_000_000
        self.desk = self.another(**alerts)

    def another(self, **alerts: Any) -> AlertDesk:
        settings = Settings(folder=self.world.folder, alerts=alerts)
        return AlertDesk(settings, self.store, lambda: self.projected, now_ns=self.world.clock)

    async def round(self) -> list[Alert]:
        """One round; what stands after it."""
        while await self.desk.round():
            continue
        return await self.store.alerts.listed()

    async def kinds(self) -> list[tuple[str, str]]:
        return [(alert.kind, alert.subject) for alert in await self.round()]

    async def ever(self) -> int:
        return len(await self.store.alerts.listed(everything=True))


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watch]:
    """A watch over a new world; nothing fails yet."""
    sick.clear()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(world("sqlite", folder, *DEFINITIONS, policy=POLICY))
        assert isinstance(made.store, SqliteStore)
        yield Watch(made, made.store)


async def waiting(watch: Watch, target: Any) -> str:
    """A run that waits."""
    run_id = await watch.world.submit(target)
    await watch.world.settle()
    return run_id
