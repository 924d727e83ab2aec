"""The project whose scenarios are killed: tools of every contract, workflows and agents of every shape.

What a step did is told by the outside log alone. Knows neither points nor kills.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from tests.crash.outside import OUTSIDE

from retinue import Context, agent, tool, workflow
from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Budget
from retinue.runs.doors import Doors
from retinue.runs.errors import PermanentError, SideEffectUnknown, TransientError
from retinue.runs.joins import best_effort, first_success, quorum

DOUBT = "nobody knows"
"""What a workflow says of a step that may have happened."""
LONG = 3_600.0


def _did(name: str, key: str, text: str, what: str = "ran") -> str:
    OUTSIDE.say(what, key, name, text)
    return f"{name} {text}"


@tool(side_effect="read")
def get(text: str, *, key: str) -> str:
    """A read: it may ride with the next commit."""
    return _did("get", key, text)


@tool(side_effect="read")
async def linger(text: str, *, key: str) -> str:
    """A read that takes a few sweeps of the host."""
    await asyncio.sleep(0.08)
    return _did("linger", key, text)


@tool(side_effect="write", idempotency="idempotent")
def put(text: str, *, key: str) -> str:
    """An outside that knows keys: the same one is the same effect."""
    return _did("put", key, text, "filed")


def _filed(text: str, key: str) -> str | None:
    return f"file {text}" if OUTSIDE.has("filed", key) else None


@tool(side_effect="write", idempotency="reconcilable", probe=_filed, timeout=30)
def file(text: str, *, key: str) -> str:
    """An outside that can be asked, and that would do everything twice."""
    return _did("file", key, text, "filed")


@tool(side_effect="write", idempotency="at_most_once")
def send(text: str, *, key: str) -> str:
    """An outside that cannot be asked, and that would do everything twice."""
    return _did("send", key, text, "filed")


@tool(side_effect="write", idempotency="idempotent")
def mail(text: str, *, key: str) -> str:
    """A write that the policy wants a yes for."""
    return _did("mail", key, text, "filed")


@tool(side_effect="read")
def shaky(text: str, *, key: str) -> str:
    """Busy when it is asked for the first time."""
    if OUTSIDE.has("tried", key) is None:
        OUTSIDE.say("tried", key, "shaky", text)
        raise TransientError("busy", retry_after=30.0)
    return _did("shaky", key, text)


@tool(side_effect="read")
async def poke(text: str, *, caller: Caller, key: str) -> str:
    """Sends its own run an event before it returns."""
    said = _did("poke", key, text)
    await OUTSIDE.client.signal(caller.run_id, "extra", text)
    return said


@tool(side_effect="write", idempotency="idempotent")
def fill_disk(text: str, *, key: str) -> str:
    """The first time, the store's disk is full when it returns."""
    if OUTSIDE.has("filed", key) is None:
        OUTSIDE.disk_full = True
    return _did("fill_disk", key, text, "filed")


@tool(side_effect="write", idempotency="idempotent")
def deafen(text: str, *, key: str) -> str:
    """The first time, the answer to the next lease is lost."""
    if OUTSIDE.has("filed", key) is None:
        OUTSIDE.deaf = True
    return _did("deafen", key, text, "filed")


@tool(side_effect="read")
async def hold(text: str, *, caller: Caller, key: str) -> str:
    """Holds its own run, and returns when its host has seen it."""
    said = _did("hold", key, text)
    await OUTSIDE.client.pause(caller.run_id)
    await asyncio.sleep(0.08)
    return said


@tool(side_effect="read")
def brittle(text: str, *, key: str) -> str:
    """Fails for good until somebody has mended it."""
    if OUTSIDE.has("mended", "") is None:
        raise PermanentError("broken", code="broken")
    return _did("brittle", key, text)


def stamp(text: str) -> str:
    """A plain function as a step."""
    return _did("stamp", f"step:{text}", text)


@workflow
async def errand(ctx: Context, text: str) -> dict[str, Any]:
    """A step of every contract, one after the other."""
    done: dict[str, Any] = {"get": await ctx.call(get, text=text), "put": await ctx.call(put, text=text)}
    done["file"] = await ctx.call(file, text=text)
    try:
        done["send"] = await ctx.call(send, text=text)
    except SideEffectUnknown:
        done["send"] = DOUBT
    done["stamp"] = await ctx.step(stamp, f"{text} again")
    try:
        done["once"] = await ctx.step(stamp, f"{text} once", repeatable=False)
    except SideEffectUnknown:
        done["once"] = DOUBT
    return done


@workflow
async def diary(ctx: Context, text: str) -> str:
    """More records than the buffer holds, then soft steps that take long."""
    for number in range(70):
        ctx.record("thought", text, number=number)
    await ctx.call(get, text=text)
    return str(await ctx.call(linger, text=text))


@workflow
async def pages(ctx: Context, most: int, state: dict[str, Any] | None = None) -> list[str]:
    """One page a checkpoint."""
    state = state or {"page": 0, "seen": []}
    if state["page"] == most:
        return list(state["seen"])
    seen = await ctx.call(put, text=f"page {state['page']}")
    await ctx.checkpoint("page", {"page": state["page"] + 1, "seen": [*state["seen"], seen]})


@workflow
async def item(ctx: Context, number: int) -> int:
    """A small child."""
    await ctx.call(get, text=f"item {number}")
    return number * 2


@workflow
async def fan(ctx: Context, many: int) -> dict[str, Any]:
    """More children than the outcome holds, in windows; then a wait, so that it is all replayed."""
    branches = await ctx.map(item, list(range(many)), window=12)
    await ctx.sleep(LONG)
    return {"sum": sum(branch.value for branch in branches), "put": await ctx.call(put, text="after")}


@workflow
async def runner(ctx: Context, seconds: float) -> str:
    """A child that is there at once, or after a long sleep."""
    if seconds:
        await ctx.sleep(seconds)
    return str(await ctx.call(put, text=f"ran {seconds}"))


@workflow
async def race(ctx: Context, _: None) -> list[list[str]]:
    """Every way to join before all are there."""
    joins = [
        await ctx.map(runner, [LONG, 0.0, LONG + 1], join=first_success()),
        await ctx.map(runner, [0.0, LONG + 2, 30.0], join=quorum(2)),
        await ctx.map(runner, [LONG + 3, 0.0], join=best_effort("60s")),
    ]
    return [[f"{branch.index} {branch.value}" for branch in branches] for branches in joins]


@workflow
async def row(ctx: Context, given: dict[str, Any]) -> str:
    """A row of the batch; the rows of a window end one after the other."""
    if given["n"]:
        await ctx.sleep(LONG * given["n"])
    return str(await ctx.call(put, text=f"row {given['n']}"))


@workflow
async def people(ctx: Context, text: str) -> list[Any]:
    """A question, a yes, and a call that the policy wants a yes for."""
    return [await ctx.ask(f"Which {text}?"), await ctx.approve("Shall it be?"), await ctx.call(mail, text=text)]


@workflow
async def waits(ctx: Context, text: str) -> list[Any]:
    """A timer, an event from outside, an event that arrives while the run is about to wait for another."""
    await ctx.sleep(LONG)
    first = await ctx.event("go")
    await ctx.call(poke, text=text)
    return [first, await ctx.event("go"), await ctx.event("extra"), await ctx.call(put, text=text)]


@workflow
async def overdue(ctx: Context, text: str) -> Any:
    """A question that nobody answers: it is passed on, then given up."""
    return await ctx.ask(f"Which {text}?", timeout="2h", default="none", escalate=("1h", "lead"))


@workflow
async def agreed(ctx: Context, _: None) -> list[Any]:
    """A join that ends by a rule of its own."""
    branches = await ctx.map(runner, [0.0, 30.0, LONG], enough=lambda ended: len(ended) >= 2)
    return [branch.value for branch in branches]


@workflow
async def paused(ctx: Context, text: str) -> list[str]:
    """A run that is held while it runs, until somebody lets it go on."""
    return [await ctx.call(put, text=text), await ctx.call(hold, text=text), await ctx.call(put, text="after")]


@workflow
async def mended(ctx: Context, text: str) -> list[str]:
    """A run that fails, and is retried when what it needs is there."""
    return [await ctx.call(put, text=text), await ctx.call(brittle, text=text), await ctx.call(put, text="after")]


@workflow
async def frail(ctx: Context, given: dict[str, Any]) -> list[str]:
    """A row of the batch; some fail until what they need is there."""
    text = f"row {given['n']}"
    done = [await ctx.call(put, text=text)]
    if given["n"] % 2:
        done.append(await ctx.call(brittle, text=text))
    return [*done, await ctx.call(put, text=f"{text} after")]


@workflow
async def above(ctx: Context, text: str) -> list[Any]:
    """A run that fails of its child."""
    return [await ctx.call(put, text=f"above {text}"), await ctx.run(mended, text), await ctx.call(put, text="above")]


@workflow
async def split(ctx: Context, many: int) -> list[Any]:
    """More children than the outcome holds, and a last step to fork at."""
    branches = await ctx.map(item, list(range(many)), window=12)
    return [sum(branch.value for branch in branches), await ctx.call(put, text="last")]


async def guest(doors: Doors, text: str) -> list[Any]:
    """An agent of another framework: it asks a model over HTTP, calls, steps, and waits for a yes."""
    body = {"model": doors.model, "messages": [{"role": "user", "content": text}], "max_tokens": 50}
    async with httpx.AsyncClient(trust_env=False, base_url=doors.base_url) as client:
        headers = {"authorization": f"Bearer {doors.api_key}"}
        reply = await client.post("/chat/completions", json=body, headers=headers, timeout=30)
    said = reply.raise_for_status().json()["choices"][0]["message"]["content"]
    both = await asyncio.gather(doors.call(get, text=text), doors.call(put, text=text))
    return [said, *both, await doors.step(stamp, "inside"), await doors.call(mail, text=text)]


@workflow(budget=Budget(usd="1.00"))
async def adopts(ctx: Context, text: str) -> list[Any]:
    """A function that is called again from its beginning, and a write behind it."""
    return [*await ctx.adopt(guest, text), await ctx.call(put, text="after")]


@workflow
async def remember(ctx: Context, ended: dict[str, Any]) -> str:
    """A follow-up."""
    return str(await ctx.call(put, text=f"remember {ended['output']}"))


@workflow(follow_ups=[remember])
async def told(ctx: Context, text: str) -> str:
    """A run with a follow-up."""
    return str(await ctx.call(put, text=text))


@workflow
async def patient(ctx: Context, text: str) -> list[str]:
    """A call that is busy first, and a write behind it."""
    return [await ctx.call(shaky, text=text), await ctx.call(put, text=text)]


@workflow
async def endless(ctx: Context, text: str) -> list[Any]:
    """Children that wait until somebody cancels the whole tree."""
    first = await ctx.call(put, text=text)
    branches = await ctx.map(runner, [LONG, LONG + 1])
    return [first, *(branch.value for branch in branches)]


@workflow(budget=Budget(seconds=60))
async def late(ctx: Context, text: str) -> str:
    """A run that has no time for what it does."""
    await ctx.call(put, text=text)
    await ctx.sleep(LONG)
    return str(await ctx.call(put, text=f"{text} too late"))


@workflow
async def together(ctx: Context, text: str) -> list[Any]:
    """Branches of one function, and children among them."""
    child = ctx.spawn(runner, 0.0)
    calls = [ctx.call(put, text=f"{text} {number}") for number in range(3)]
    return [*(await asyncio.gather(*calls, ctx.call(get, text=text))), await child, await ctx.run(item, 21)]


@workflow
async def spill(ctx: Context, text: str) -> list[str]:
    """A run whose outcome cannot be written at first."""
    return [await ctx.call(put, text=text), await ctx.call(fill_disk, text=text), await ctx.call(put, text="after")]


@workflow
async def unheard(ctx: Context, text: str) -> list[Any]:
    """A child that is leased to a host which does not hear of it at first."""
    return [await ctx.call(deafen, text=text), await ctx.run(item, 4)]


@workflow
async def memoirs(ctx: Context, text: str) -> list[Any]:
    """Memories that are kept, kept anew under a key, recalled, and forgotten; one needs a yes."""
    await ctx.remember(f"{text} is blue", key="color")
    await ctx.remember(f"{text} is old", scope="tenant")
    await ctx.sleep(LONG)
    await ctx.remember(f"{text} is green", key="color")
    seen = await ctx.recall("what color is it: green or blue?", scope=["agent", "tenant"], fill=True)
    gone = [await ctx.forget("color"), await ctx.forget("color")]
    left = await ctx.recall(scope=["agent", "tenant"])
    return [
        [memory.content for memory in seen],
        gone,
        [memory.content for memory in left],
        await ctx.call(put, text=text),
    ]


@workflow(budget=Budget(usd="1.00"))
async def visits(ctx: Context, text: str) -> list[Any]:
    """Calls to a server: it asks people twice, has a task, asks a model, and one of its tools needs a yes."""
    done = [await ctx.call("desk__order", text=text), await ctx.call("desk__brew", text=text)]
    await ctx.sleep(LONG)
    return [*done, await ctx.call("desk__think", text=text), await ctx.call("desk__note", text=text)]


@workflow
async def shown_out(ctx: Context, text: str) -> list[Any]:
    """A call whose session is closed by a person while it asks, and one in the session after it."""
    try:
        done = await ctx.call("desk__order", text=text)
    except SideEffectUnknown:
        done = DOUBT
    return [done, await ctx.call("desk__brew", text="after")]


paid = agent("paid", "Look, put, answer.", tools=[get, put], max_tokens=50, budget=Budget(usd="1.00"))
free = agent("free", "Look, ask, hand over.", tools=[get, put], asks=True, handoffs=["second"])
unsure = agent("unsure", "Look, answer.", tools=[get], min_confidence=0.9)
second = agent("second", "Answer.", tools=[get, put])
