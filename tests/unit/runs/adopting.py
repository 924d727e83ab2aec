"""Functions to adopt, their tools and policies, and what was done outside. Knows no test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from tests.doubles.worlds import World, costs
from tests.unit.runs.conftest import Make
from tests.unit.runs.test_money import Witness

from retinue.runs.context import Context
from retinue.runs.contracts import Json
from retinue.runs.definitions import agent, workflow
from retinue.runs.doors import Doors
from retinue.runs.errors import (
    TransientModelError,
)
from retinue.runs.messages import ModelReply, ModelRequest, OnDelta
from retinue.sessions.native import tool

ASK_FIRST = """
@id("all") permit (principal, action, resource);
@id("ask") @outcome("approval") @reason("ask first") forbid (principal, action, resource == Capability::"put");
"""
NO_PUT = """
@id("all") permit (principal, action, resource);
@id("no") @reason("not today") forbid (principal, action, resource == Capability::"put");
"""
NO_MODEL = """
@id("all") permit (principal, action, resource);
@id("no") @reason("no thinking") forbid (principal, action == Action::"model", resource);
"""


class Outside:
    """What was done outside of the runs, and how often the function was called. `hold` keeps a call from ending."""

    def __init__(self) -> None:
        self.starts = 0
        self.written: list[str] = []
        self.keys: list[str] = []
        self.tokens: list[str] = []
        self.hold = False
        self.leaked: list[Doors] = []


outside = Outside()


def forget() -> None:
    """Begin anew."""
    outside.__init__()  # type: ignore[misc]


@tool(side_effect="write", idempotency="idempotent")
async def put(text: str, *, key: str) -> str:
    """Write."""
    outside.written.append(text)
    outside.keys.append(key)
    if outside.hold:
        await asyncio.Event().wait()
    return f"put {text}"


@tool(side_effect="write", idempotency="at_most_once")
async def mail(text: str) -> str:
    """Write, never twice."""
    outside.written.append(text)
    if outside.hold:
        await asyncio.Event().wait()
    return text


async def post(doors: Doors, text: str, token: str | None = None, **more: Json) -> httpx.Response:
    """A request as a framework makes it."""
    headers = {"authorization": f"Bearer {doors.api_key if token is None else token}"}
    body = {"model": doors.model, "messages": [{"role": "user", "content": text}], **more}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{doors.base_url}/chat/completions", json=body, headers=headers, timeout=30)


async def say(doors: Doors, text: str) -> str:
    """The model's answer."""
    reply = await post(doors, text)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


class Limited(Witness):
    """A model that asks for a pause, every time."""

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        raise TransientModelError("slow down", code="rate_limited", retry_after=6.2)


Body = Callable[[Doors], Any]
body: list[Body] = []


async def function(doors: Doors, *given: Json) -> Json:
    """What a test says."""
    outside.starts += 1
    outside.tokens.append(doors.api_key)
    outside.leaked.append(doors)
    return await body[0](doors)


@workflow
async def keeps(ctx: Context, given: Json) -> Json:
    return await ctx.adopt(function, given)


@workflow
async def hurried(ctx: Context, _: None) -> Json:
    return await ctx.adopt(function, timeout=0.2)


holder = agent("holder", "Holds the tools.", tools=[put, mail])


async def build(make: Make, told: Body, **options: Any) -> World:
    """A world whose adopted function does what is told; its model says 42 and costs a cent."""
    body[:] = [told]
    world = await make(keeps, hurried, holder, **options)
    world.decide(costs({"answer": "42"}, "0.010000"))
    return world
