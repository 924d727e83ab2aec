"""Workflows that fail as they are told to, and what was done before."""

from __future__ import annotations

from typing import Any

from tests.doubles.worlds import World

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, TransientError
from retinue.sessions.native import tool

done: list[str] = []
broken: set[str] = set()
lost: list[int] = []


def begin_anew() -> None:
    """Nothing is done, broken or lost."""
    done.clear()
    broken.clear()
    lost.clear()


async def work(name: str) -> str:
    done.append(name)
    if name in broken:
        raise PermanentError(f"{name} is broken")
    if lost:
        raise TransientError(f"the reply to {name} was lost")
    return f"{name} {len(done)}"


@workflow
async def steps(ctx: Context, names: list[str]) -> list[str]:
    return [await ctx.step(work, name) for name in names]


@workflow
async def piece(ctx: Context, name: str) -> str:
    before = await ctx.step(work, f"before {name}")
    return before + "; " + str(await ctx.step(work, name))


@workflow
async def strict(ctx: Context, names: list[str]) -> list[Any]:
    branches = await ctx.map(piece, names)
    for branch in branches:
        if not branch.ok:
            raise PermanentError(f"branch {branch.index} failed")
    return [branch.value for branch in branches]


@workflow
async def both(ctx: Context, names: list[str]) -> list[Any]:
    return [await ctx.run(piece, name) for name in names]


async def failed(world: World, target: Any, input: Any, **fields: Any) -> str:
    result = await world.run(target, input, **fields)
    assert result.status is Status.failed
    return result.run_id


ASK = """
@id("all") permit (principal, action, resource) unless { action == Action::"doubt" };
@id("ask") @outcome("approval") forbid (principal, action == Action::"capability", resource);
"""


@tool(side_effect="write", idempotency="at_most_once")
async def pay(amount: int, *, key: str) -> str:
    """Pays."""
    return await work(f"pay {amount}")


payer = agent("payer", "Pays.", tools=[pay])


def buys(amount: int, version: str) -> Any:
    @workflow(name="buys", version=version)
    async def made(ctx: Context, _: Any) -> Any:
        return await ctx.call("pay", amount=amount)

    return made


def flow(version: str, names: list[str], spread: bool = False) -> Any:
    """The first names are worked on one by one, or each by a child; the last one always by a step."""

    @workflow(name="flow", version=version)
    async def made(ctx: Context, _: Any) -> list[Any]:
        if spread:
            first = [branch.value for branch in await ctx.map(piece, names[:-1])]
        else:
            first = [await ctx.step(work, name) for name in names[:-1]]
        return [*first, await ctx.step(work, names[-1])]

    return made
