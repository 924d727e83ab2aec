"""What a run waits for, read from its journal: of journals written by hand, and of those the engine writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.doubles.worlds import ALLOW_ALL, SECOND, World, world

from retinue.ingress.awaiting import Awaited, awaited
from retinue.ingress.pending import pending
from retinue.runs.context import Context
from retinue.runs.contracts import ErrorInfo, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import Workflow, agent, workflow
from retinue.runs.errors import TransientError
from retinue.runs.joins import best_effort
from retinue.runs.journal import AnyEntry, Attempt, Checkpoint, EffectKind, Frame, Intent, Leased, Outcome, Parked
from retinue.runs.patience import Patience
from retinue.sessions.native import tool

GATE = {
    "outcome": "approval_required",
    "reason": "notes are kept",
    "rules": [
        {"rule": "ask-first", "outcome": "approval_required", "reason": "notes are kept"},
        {"rule": "reads", "outcome": "allow", "reason": "fine"},
    ],
}
ERROR = ErrorInfo(reason="tool_failure", code="busy", message="the printer is busy")


def intent(effect: EffectKind, name: str, content: Any = None, at: int = START, **facts: Any) -> Intent:
    """An effect begun at key `0/NAME#0`."""
    key = f"0/{name}#0" + facts.pop("suffix", "")
    return Intent(at=at, key=key, effect=effect, name=name, digest="d", content=content, facts=facts)


def parked(*keys: str, wake_at: int | None = None) -> Parked:
    """A park for these keys."""
    return Parked(at=START + 9, status=Status.waiting, reason=StopReason.timer, waits=keys, wake_at=wake_at)


def waits_of(*entries: AnyEntry) -> tuple[Awaited, ...]:
    """What a run waits for that wrote these, an append each."""
    return awaited(Frame(place, "run", "acme", place, 1, (entry,)) for place, entry in enumerate(entries, start=1))


@pytest.mark.promise("B4")
@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((intent("event", "built"),), {"kind": "event", "name": "built", "due": None}),
        ((intent("timer", "sleep", {"until": START + 5}),), {"kind": "timer", "due": START + 5}),
        (
            (intent("input", "ask", {"prompt": "Which colour?"}, request_id="q1"),),
            {"kind": "input", "why": "Which colour?", "request_id": "q1", "rules": ()},
        ),
        (
            (intent("approval", "save", {"prompt": "May I?"}, suffix="!approval", gate=GATE, request_id="q2"),),
            {
                "kind": "approval",
                "name": "save",
                "key": "0/save#0",
                "reason": "notes are kept",
                "rules": ("ask-first",),
            },
        ),
        (
            (intent("children", "part", join={"need": 2, "deadline": 3.0}),),
            {"kind": "child", "name": "part", "why": "2 must complete", "due": START + 3 * SECOND},
        ),
        ((intent("children", "part", join={"need": None}),), {"kind": "child", "why": "all must end", "due": None}),
        (
            (
                intent("call", "send"),
                Attempt(at=START + 1, key="0/send#0", number=2, error=ERROR, not_before=START + 7),
            ),
            {"kind": "retry", "name": "send", "since": START + 1, "due": START + 7},
        ),
        (
            (Attempt(at=START + 1, key="0/1/flows.print#0", number=1, error=ERROR, not_before=START + 7),),
            {
                "kind": "retry",
                "name": "flows.print",
                "why": "another try of flows.print; try 1 failed: the printer is busy",
            },
        ),
        (
            (intent("call", "send"), parked("0/send#0", wake_at=START + 70)),
            {"kind": "unknown", "name": "send", "due": START + 70},
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_an_open_effect_is_what_a_run_waits_for(entries: tuple[AnyEntry, ...], expected: dict[str, Any]) -> None:
    [found] = waits_of(*entries)
    assert {name: getattr(found, name) for name in expected} == expected


def test_what_has_an_outcome_or_stands_before_the_checkpoint_is_not_waited_for() -> None:
    ended = Outcome(at=START, key="0/built#0", effect="event", name="built", activation=1)
    before = intent("event", "old"), Checkpoint(at=START, name="page", number=1)
    assert waits_of(*before, intent("event", "built"), ended) == ()


def test_an_effect_in_flight_is_no_wait_until_its_run_is_parked_for_it() -> None:
    again = Leased(at=START, epoch=2, host_id="h", actor_id=None, pid=1, node="n")
    assert waits_of(intent("call", "send"), intent("model", "m")) == ()
    assert [one.kind for one in waits_of(intent("call", "send"), parked("0/send#0"), again)] == ["unknown"]
    assert waits_of(intent("call", "send"), parked("0/send#0"), intent("event", "built"))[0].kind == "event"


def test_waits_come_oldest_first_and_erased_words_are_told() -> None:
    found = waits_of(intent("event", "late", at=START + 2), intent("input", "ask", None, at=START + 1, request_id="q"))
    assert [(one.kind, one.why) for one in found] == [("input", "(content erased)"), ("event", "")]


@tool(side_effect="read")
def busy(page: str) -> str:
    """Fails for a while."""
    raise TransientError("the printer is busy", code="busy")


posted: list[str] = []


def find(page: str, key: str) -> str | None:
    return None


@tool(side_effect="write", idempotency="reconcilable", probe=find, timeout=20)
async def post(page: str, *, key: str) -> str:
    """Does not come back."""
    posted.append(key)
    await asyncio.Event().wait()
    return page


@workflow
async def poster(ctx: Context, page: str) -> str:
    return str(await ctx.call(post, page=page))


@workflow
async def sleeper(ctx: Context, hours: int) -> None:
    await ctx.sleep(hours * 3600)


@workflow
async def everything(ctx: Context, question: str) -> None:
    ctx.spawn(sleeper, 1)
    asked = ctx.spawn(asker, question)
    await ctx.map(sleeper, [2, 3], join=best_effort("5h"))
    await asked


@workflow
async def asker(ctx: Context, question: str) -> str:
    if await ctx.approve("Go on?"):
        await ctx.event("never")
    return str(await ctx.ask(question))


@workflow
async def printer(ctx: Context, page: str) -> str:
    return str(await ctx.call(busy, page=page))


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[World]:
    definitions = (everything, asker, sleeper, printer, poster, agent("clerk", "Prints.", tools=[busy, post]))
    async with world("memory", tmp_path, *definitions, policy=ALLOW_ALL) as found:
        yield found


async def look(made: World, run_id: str) -> list[tuple[str, str]]:
    """(kind, name) of what a run of the engine waits for."""
    frames = [frame async for frame in made.store.read(run_id)]
    return [(one.kind, one.name) for one in awaited(frames)]


@pytest.mark.promise("B4")
async def test_what_the_engine_parks_for_is_found(made: World) -> None:
    top = await made.submit(everything, "Which colour?")
    await made.settle()
    assert sorted(await look(made, top)) == [("child", "asker"), ("child", "sleeper"), ("child", "sleeper")]
    below = {record.target: record.run_id for record in await made.store.list_runs(RunQuery(parent_run_id=top))}
    assert await look(made, below["asker"]) == [("approval", "approve")]
    assert await look(made, below["sleeper"]) == [("timer", "sleep")]
    [request] = await made.store.requests()
    await made.store.resolve(request.request_id, "approved", "bob", made.clock())
    await made.settle()
    assert await look(made, below["asker"]) == [("event", "never")]


async def test_a_failed_try_is_waited_out(made: World) -> None:
    run_id = await made.submit(printer, "cover")
    await made.settle()
    assert await look(made, run_id) == [("retry", "busy")]


@pytest.mark.promise("B4")
async def test_a_write_that_nobody_saw_end_is_waited_out(made: World) -> None:
    posted.clear()
    run_id = await made.submit(poster, "cover")
    await made.until(lambda: len(posted) == 1)
    await made.crash()
    await made.settle()
    assert await look(made, run_id) == [("unknown", "post")]


@pytest.mark.promise("B4")
def test_a_write_about_which_a_person_is_asked_is_listed_once() -> None:
    call = intent("call", "send")
    asked = intent("input", "send", {"prompt": "Has it?"}, request_id="q1", doubt="send", suffix="!doubt")
    [waits] = waits_of(call, asked, parked(call.key))
    assert (waits.kind, waits.name, waits.request_id) == ("unknown", "send", "q1")


ASKS_FOR_POSTS = """
@id("all") permit (principal, action, resource);
@id("ask") @outcome("approval") @reason("posts need a yes")
forbid (principal, action == Action::"capability", resource == Capability::"post");
"""


@pytest.mark.promise("B4")
@pytest.mark.parametrize("target", [asker, poster])
async def test_the_inbox_and_the_journal_tell_the_same_of_a_question(tmp_path: Path, target: Workflow) -> None:
    """The one reads the open request, the other the intent that was written with it: they may not drift apart."""
    clerk = agent("clerk", "Posts.", tools=[post])
    async with world("sqlite", tmp_path, asker, poster, clerk, policy=ASKS_FOR_POSTS) as made:
        made.use(patience=Patience(timeout=3_600))
        run_id = await made.submit(target, "x")
        await made.settle()
        asked = await pending(made.store, None, everything=False, limit=10)
        assert asked == await pending(made.store, run_id, everything=False, limit=10)
        [waits] = asked.waits
        assert waits.kind == "approval" and waits.due is not None and "!" not in waits.key
        assert (waits.name, waits.rules) == (("approve", ()) if target is asker else ("post", ("ask",)))
