"""Parts that the tests of the patterns compose: workflows whose work is logged by run, and one pattern of each kind."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.doubles.worlds import World

from retinue.runs.context import Context
from retinue.runs.definitions import Workflow, agent, workflow
from retinue.runs.patterns.chain import chain
from retinue.runs.patterns.handoff import handoff
from retinue.runs.patterns.orchestrate import orchestrate
from retinue.runs.patterns.parallel import parallel
from retinue.runs.patterns.refine import refine
from retinue.runs.patterns.route import route
from retinue.runs.patterns.vote import vote

worked: list[tuple[str, str]] = []
"""(run, what) of every piece of work that was done."""
held: dict[str, asyncio.Event] = {}
"""Work that waits until its event is set."""


def forget() -> None:
    """Begin anew."""
    worked.clear()
    held.clear()


def hold(*words: str) -> None:
    """Let work on these wait."""
    held.update({word: asyncio.Event() for word in words})


async def work(run_id: str, what: str) -> str:
    """Do a piece of work; `bad` work fails, held work waits."""
    worked.append((run_id, what))
    if what in held:
        await held[what].wait()
    if what.startswith("bad"):
        raise ValueError(f"no {what}")
    return what


def did(name: str) -> list[str]:
    """On what a part worked, in order: work is logged as `name:what`."""
    return [what.split(":", 1)[1] for _, what in worked if what.startswith(f"{name}:")]


async def _log(ctx: Context, name: str, what: Any) -> None:
    await ctx.step(work, ctx.request.run_id, f"{name}:{what}")


@workflow
async def outline(ctx: Context, topic: str) -> str:
    await _log(ctx, "outline", topic)
    return f"outline of {topic}"


@workflow
async def draft(ctx: Context, text: str) -> str:
    await _log(ctx, "draft", text)
    return f"draft from {text}"


@workflow
async def polish(ctx: Context, text: str) -> str:
    await _log(ctx, "polish", text)
    return f"{text}, polished"


@workflow
async def sort_out(ctx: Context, text: str) -> str:
    await _log(ctx, "sort_out", text)
    return text.split(":")[0]


@workflow
async def billing(ctx: Context, text: str) -> str:
    await _log(ctx, "billing", text)
    return f"billing read {text}"


@workflow
async def tech(ctx: Context, text: str) -> str:
    await _log(ctx, "tech", text)
    return f"tech read {text}"


@workflow
async def clerk(ctx: Context, what: str) -> str:
    """Works on what it is given; bad work fails."""
    return f"{await ctx.step(work, ctx.request.run_id, what)} done"


@workflow
async def judge(ctx: Context, what: str) -> dict[str, str]:
    """Votes for the last word of what it is given."""
    found = await ctx.step(work, ctx.request.run_id, what)
    return {"vote": found.split()[-1], "why": found}


@workflow
async def planner(ctx: Context, question: str) -> dict[str, Any]:
    await _log(ctx, "planner", question)
    return {"parts": question.split(", ")}


@workflow
async def synthesizer(ctx: Context, brief: dict[str, Any]) -> dict[str, Any]:
    await _log(ctx, "synthesizer", brief["question"])
    return brief


@workflow
async def writer(ctx: Context, given: dict[str, Any]) -> str:
    await _log(ctx, "writer", given.get("draft", "nothing"))
    return f"{given.get('draft', given['task'])}+"


@workflow
async def critic(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    await _log(ctx, "critic", given["draft"])
    pluses = given["draft"].count("+")
    return {"score": pluses, "accepted": pluses >= 2}


triage = agent("triage", "Sort.", handoffs=["refunds"])
refunds = agent("refunds", "Refund.", handoffs=["triage", "boss"])
boss = agent("boss", "Decide.", handoffs=["triage"])

report = chain("report", outline, draft, polish)
support = route("support", sort_out, {"billing": billing, "tech": tech})
review = parallel(
    "review",
    {"security": clerk, "style": clerk, "tests": clerk},
    select={name: lambda given, name=name: given[name] for name in ("security", "style", "tests")},
)
moderate = vote("moderate", judge, count=5, need=3, by="vote", vary=lambda given, index: given[index])
research = orchestrate("research", planner, clerk, synthesizer)
essay = refine("essay", writer, critic, rounds=3)
desk = handoff("desk", triage, refunds, boss)

PATTERNS: dict[str, tuple[Workflow, Any]] = {
    "chain": (report, "tea"),
    "route": (support, "tech: no signal"),
    "parallel": (review, {"security": "s", "style": "bad style", "tests": "t"}),
    "vote": (moderate, ["a yes", "b no", "c yes", "d yes", "e no"]),
    "orchestrate": (research, "one, two, bad three"),
    "refine": (essay, "text"),
    "handoff": (desk, "money back"),
}
"""A pattern of each kind with an input that it completes for."""


def script(world: World) -> None:
    """What the agents of the desk decide: triage → refunds → boss, who answers."""
    world.script(
        {"match": {"agent": "triage"}, "decisions": [{"handoff": "refunds", "artifact": {"order": 7}}]},
        {"match": {"agent": "refunds"}, "decisions": [{"handoff": "boss", "artifact": {"order": 7, "sum": 30}}]},
        {"match": {"agent": "boss"}, "decisions": [{"answer": "granted"}]},
    )


@workflow
async def whole(ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
    return given
