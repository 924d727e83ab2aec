"""The definitions that the journals beside this file were made with. Frozen: a change here would be a change of code
under runs that go on.

`executed` gets the value of every step and tool that is really run; `faults` holds tools that fail once for each time
they are named, `stuck` tools that never end, `broken` steps that always fail.
"""

from __future__ import annotations

import asyncio
from typing import Any

from retinue.runs.context import Context
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, TransientError
from retinue.sessions.native import tool

executed: list[str] = []
faults: list[str] = []
stuck: set[str] = set()
broken: set[str] = set()


async def _ran(name: str, value: str) -> str:
    executed.append(value)
    if name in stuck:
        await asyncio.Event().wait()
    if name in faults:
        faults.remove(name)
        raise TransientError(f"{name} is away", retry_after=90)
    return value


async def measure(name: str) -> str:
    return await _ran("measure", f"measured {name}")


async def fragile(name: str) -> str:
    if name in broken:
        raise PermanentError(f"{name} is broken")
    return await _ran("fragile", f"{name} done")


@tool(side_effect="read")
async def search(query: str) -> str:
    """Look something up."""
    return await _ran("search", f"found {query}")


@tool(side_effect="write", idempotency="idempotent")
async def put(text: str, *, key: str) -> str:
    """A write that may be sent again with its key."""
    return await _ran("put", f"put {text}")


@tool(side_effect="write", idempotency="at_most_once")
async def mail(text: str, *, key: str) -> str:
    """A write that is never sent again."""
    return await _ran("mail", f"mailed {text}")


@workflow(version="1")
async def errand(ctx: Context, names: list[str]) -> dict[str, Any]:
    """Steps, chance, time, an event, a question, an approval and calls, in order and together."""
    measured = [await ctx.step(measure, name) for name in names]
    dice = ctx.random.randint(1, 1_000_000)
    await ctx.sleep("10m")
    go = await ctx.event("go")
    both = await asyncio.gather(ctx.call(search, query="left"), ctx.call(put, text="right"))
    colour = await ctx.ask("which colour?", hint="not red")
    agreed = await ctx.approve("go on?")
    last = await ctx.call(put, text=f"{colour} {agreed}")
    return {"measured": measured, "dice": dice, "go": go, "both": both, "last": last}


@workflow
async def race(ctx: Context, names: list[str]) -> list[str]:
    """Who came first decides what is done next; that is written down."""
    tasks = [asyncio.ensure_future(ctx.call(search, query=name)) for name in names]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    told = await ctx.call(put, text=f"first {sorted(tasks.index(task) for task in done)}")
    if rest:
        await asyncio.wait(rest)
    await ctx.sleep(30)
    return [told, *(task.result() for task in tasks)]


@workflow
async def pages(ctx: Context, count: int, state: dict[str, Any] | None = None) -> list[str]:
    """A checkpoint after every page."""
    seen = [] if state is None else list(state["seen"])
    if len(seen) == count:
        return seen
    seen.append(await ctx.step(measure, f"page {len(seen)}"))
    await ctx.sleep(5)
    await ctx.checkpoint("page", {"seen": seen})
    return seen


@workflow
async def piece(ctx: Context, name: str) -> str:
    """What the branches of a fan-out do."""
    first = await ctx.step(measure, name)
    await ctx.sleep(60)
    return first + ", " + str(await ctx.call(put, text=name))


@workflow
async def fan(ctx: Context, names: list[str]) -> list[str]:
    """Few branches: their results stand in the parent's journal. Many: they stay in the table of children."""
    branches = await ctx.map(piece, names)
    return [branch.value for branch in branches] + [await ctx.step(measure, "the end")]


@workflow
async def windowed(ctx: Context, names: list[str]) -> list[str]:
    """Two branches at a time."""
    return [branch.value for branch in await ctx.map(piece, names, window=2)]


@workflow
async def small(ctx: Context, number: int) -> int:
    return number * number


@workflow
async def wide(ctx: Context, count: int) -> int:
    """More branches than stand in a journal, each as small as can be."""
    squares = await ctx.map(small, list(range(count)))
    await ctx.sleep(30)
    return sum(branch.value for branch in squares)


@workflow
async def writes(ctx: Context, names: list[str]) -> list[str]:
    return [await ctx.call(name, text=f"text {place}") for place, name in enumerate(names)]


@workflow
async def reads(ctx: Context, query: str) -> str:
    return str(await ctx.call(search, query=query))


@workflow
async def shaky(ctx: Context, names: list[str]) -> list[str]:
    """Fails for good while something is `broken`; a retry goes on behind what ended well."""
    return [await ctx.step(fragile, name) for name in names]


@workflow
async def strict(ctx: Context, names: list[str]) -> list[str]:
    """Fails when a child does; a retry takes it along."""
    return [await ctx.run(shaky, [name, f"{name} again"]) for name in names]


@workflow
async def patient(ctx: Context, _: None) -> list[Any]:
    """Questions that pass on, expire and have a default; nobody says yes."""
    region = await ctx.ask("which region?", timeout="2h", default="eu", to="ops", escalate=("30m", "lead"))
    agreed = await ctx.approve("ship it?", timeout="1h", to="ops")
    return [region, agreed, await ctx.ask("and now?", to="ops")]


@workflow
async def gathering(ctx: Context, name: str) -> dict[str, Any]:
    """Different targets as one group."""
    found = await ctx.gather("both", {"left": (piece, name), "right": (small, 7)})
    return {label: branch.value for label, branch in found.items()}


@workflow
async def diary(ctx: Context, words: list[str]) -> int:
    """Keeps what it saw, the newest in the place of the one before."""
    for word in words:
        await ctx.remember(f"saw {await ctx.step(measure, word)}", key="newest", tags=["diary"])
    return len(words)


@workflow
async def boxed(ctx: Context, word: str) -> list[Any]:
    """Works in a sandbox, with a step in between; nothing of it is kept as a snapshot."""
    box = await ctx.sandbox("coder")
    await box.write("notes/word.txt", word)
    measured = await ctx.step(measure, word)
    done = await box.exec("sh", "-c", "cat notes/word.txt; echo more >> notes/word.txt")
    await box.edit("notes/word.txt", "more", "less")
    return [measured, done.exit_code, done.stdout, await box.read("notes/word.txt")]


@workflow
async def remember(ctx: Context, done: dict[str, Any]) -> str:
    """Follows an answer."""
    return str(await ctx.step(measure, f"the answer {done['output']!r}"))


researcher = agent("researcher", "Find out.", tools=[search, put], asks=True, follow_ups=[remember])
finder = agent("finder", "Find.", tools=[search])
desk = agent("desk", "Pass it on.", handoffs=["finder"])
clerk = agent("clerk", "Read a row.", tools=[search, mail])

DEFINITIONS = (
    errand,
    race,
    pages,
    piece,
    fan,
    windowed,
    small,
    wide,
    writes,
    reads,
    shaky,
    strict,
    patient,
    gathering,
    diary,
    boxed,
    remember,
)
AGENTS = (researcher, finder, desk, clerk)


def _calls(name: str, **arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


CALLS_ONLY = '@id("rest") permit (principal, action, resource) unless { action == Action::"doubt" };'
"""No rule speaks of doubts: a person is asked."""

SCRIPT: list[dict[str, Any]] = [
    {
        "match": {"agent": "researcher"},
        "decisions": [
            _calls("search", query="one"),
            {
                "tool_calls": [
                    {"name": "search", "arguments": {"query": "two"}},
                    {"name": "put", "arguments": {"text": "three"}},
                ]
            },
            {"ask_human": "is that enough?"},
            {"answer": "one, two and three"},
        ],
    },
    {"match": {"agent": "desk"}, "decisions": [{"handoff": "finder", "artifact": {"next": "look"}}]},
    {"match": {"agent": "finder"}, "decisions": [_calls("search", query="it"), {"answer": "found"}]},
    *(
        {"match": {"agent": "clerk", "input_id": row}, "decisions": [_calls("search", query=row), {"answer": row}]}
        for row in ("r1", "r2", "r3")
    ),
]

SCENARIOS: dict[str, dict[str, Any]] = {
    "errand": {
        "target": "errand",
        "input": ["a", "b"],
        "answers": {"which colour?": "blue", "go on?": True},
        "events": {"go": {"by": "noon"}},
    },
    "race": {"target": "race", "input": ["a", "bb", "ccc"]},
    "pages": {"target": "pages", "input": 4},
    "fan": {"target": "fan", "input": ["a", "b", "c"]},
    "wide": {"target": "wide", "input": 34},
    "windowed": {"target": "windowed", "input": ["a", "b", "c", "d"]},
    "retrying": {"target": "reads", "input": "far", "faults": ["search", "search"]},
    "put": {"target": "writes", "input": ["put", "put"], "stuck": "put"},
    "mail": {"target": "writes", "input": ["put", "mail"], "stuck": "mail", "resumed": True},
    "researcher": {"target": "researcher", "input": "find it", "answers": {"is that enough?": "yes"}},
    "handoff": {"target": "desk", "input": "the goal"},
    "doubt": {
        "target": "writes",
        "input": ["put", "mail"],
        "stuck": "mail",
        "doubted": True,
        "policy": CALLS_ONLY,
        "answers": {"mail may have happened": {"happened": "mailed text 1"}},
    },
    "shaky": {"target": "shaky", "input": ["a", "b", "c"], "broken": ["b"]},
    "strict": {"target": "strict", "input": ["x", "y"], "broken": ["y again"], "fields": {"queue": "slow"}},
    "patient": {"target": "patient", "answers": {"and now?": "done"}, "input": None},
    "gathering": {"target": "gathering", "input": "a"},
    "diary": {"target": "diary", "input": ["a", "b"]},
    "boxed": {"target": "boxed", "input": "a"},
    "job": {"target": "retinue.batch", "job": {"target": "clerk", "window": 2}},
}
"""What to run and what the world says to it. `stuck`: the cut falls while that tool runs; `resumed`: it then ends
otherwise than an undisturbed run, and as it did with the code it was recorded by. `doubted`: the crash belongs to the
whole run too. `broken`: the run fails, is repaired and retried. Questions without an answer are never answered."""
