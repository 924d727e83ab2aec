"""Writes under their contracts: one key for one effect, and never a quiet second write after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.shapes import START
from tests.doubles.worlds import World, calls
from tests.unit.runs.conftest import Make

from retinue.runs.capabilities import Caller
from retinue.runs.context import Context
from retinue.runs.contracts import Branch, StopReason
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, SideEffectUnknown, TransientError
from retinue.runs.identity import effect_key
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("C4"), pytest.mark.rule("R13")]


class Outside:
    """The world outside: what was done under which key. `hold` keeps a call from ending."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.keys: list[str] = []
        self.epochs: list[int] = []
        self.done: dict[str, str] = {}
        self.probed: list[int] = []
        self.hold = False
        self.released = asyncio.Event()
        self.fails = 0

    async def act(self, text: str, key: str, caller: Caller) -> str:
        self.keys.append(key)
        self.epochs.append(caller.epoch)
        if self.fails:
            self.fails -= 1
            raise TransientError("the other side is away")
        self.done[key] = text
        if self.hold:
            await asyncio.Event().wait()
        return text


outside = Outside()


@pytest.fixture(autouse=True)
def fresh() -> None:
    outside.reset()


def find(text: str, key: str) -> str | None:
    outside.probed.append(len(outside.keys))
    return outside.done.get(key)


@tool(side_effect="write", idempotency="idempotent")
async def put(text: str, *, key: str, caller: Caller) -> str:
    """Idempotent."""
    return await outside.act(text, key, caller)


@tool(side_effect="write", idempotency="reconcilable", probe=find, timeout=20)
async def file(text: str, *, key: str, caller: Caller) -> str:
    """Reconcilable."""
    return await outside.act(text, key, caller)


@tool(side_effect="write", idempotency="at_most_once")
async def mail(text: str, *, key: str, caller: Caller) -> str:
    """At most once."""
    return await outside.act(text, key, caller)


keeper = agent("keeper", "Keeps.", tools=[put, file, mail])


@workflow
async def act(ctx: Context, names: list[str]) -> list[str]:
    return [await ctx.call(name, text=f"text {place}") for place, name in enumerate(names)]


async def interrupted(world: World, name: str) -> Branch:
    """The result of a run whose owner died while the write was being made."""
    outside.hold = True
    run_id = await world.submit(act, [name])
    await world.until(lambda: len(outside.keys) == 1)
    await world.crash()
    outside.hold = False
    return await world.finish(run_id)


async def test_the_key_is_that_of_the_scope_and_the_step(make: Make) -> None:
    world = await make(act, keeper)
    result = await world.run(act, ["put", "put"], effect_scope="seed")
    intents = await world.intents(result.run_id)
    assert outside.keys == [effect_key("seed", intent.key) for intent in intents]
    assert len(set(outside.keys)) == 2


async def test_another_scope_gives_other_keys_and_the_same_scope_the_same(make: Make) -> None:
    world = await make(act, keeper)
    for scope in ("seed", "fork", "seed"):
        await world.run(act, ["put"], effect_scope=scope)
    first, fork, retry = outside.keys
    assert first == retry != fork


async def test_an_idempotent_write_is_sent_again_with_the_same_key_by_the_next_owner(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper)
    result = await interrupted(world, "put")
    assert result.value == ["text 0"]
    assert len(outside.keys) == 2 and len(set(outside.keys)) == 1
    assert outside.epochs == [1, 2]


@pytest.mark.promise("A4")
async def test_an_interrupted_at_most_once_write_is_unknown_and_never_repeated(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper)
    result = await interrupted(world, "mail")
    assert result.reason is StopReason.side_effect_unknown
    assert result.error is not None and "must not be repeated" in result.error.message
    assert len(outside.keys) == 1
    [outcome] = await world.outcomes(result.run_id)
    assert outcome.result == "unknown"


@pytest.mark.rule("R9")
async def test_a_probe_that_finds_the_write_ends_it_without_a_second_one(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper)
    result = await interrupted(world, "file")
    assert result.value == ["text 0"]
    assert len(outside.keys) == 1 and outside.probed == [1]


@pytest.mark.rule("R9")
async def test_no_try_may_be_applied_after_the_deadline_that_is_on_record(make_on_each: Make) -> None:
    """A probe counts from what is on record: the commit of it, however slow, gives the other side no more time."""
    world = await make_on_each(act, keeper)
    deadlines: list[int] = []
    make_call = world.services.gateway.execute

    async def execute(call: Any, caller: Caller, link: Any = None) -> Any:
        deadlines.append(caller.deadline)
        return await make_call(call, caller, link)

    world.services.gateway.execute = execute  # type: ignore[method-assign]
    assert (await interrupted(world, "put")).value == ["text 0"]
    recorded = [each.facts["deadline"] for each in await world.intents("run-0001") if each.effect == "call"]
    assert len(recorded) == len(deadlines) == 2
    assert all(given <= known for given, known in zip(deadlines, recorded, strict=True))


@pytest.mark.rule("R9")
async def test_an_absence_counts_only_after_the_deadline_and_a_while(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper)
    outside.hold = True
    run_id = await world.submit(act, ["file"])
    await world.until(lambda: len(outside.keys) == 1)
    outside.done.clear()
    await world.crash()
    outside.hold = False
    await world.settle()
    [intent] = await world.intents(run_id)
    record = await world.store.get(run_id)
    deadline = intent.facts["deadline"]
    assert deadline == intent.at + 20_000_000_000 or abs(deadline - intent.at - 20_000_000_000) < 1_000_000
    assert outside.probed == [] and record.wake_at is not None and record.wake_at >= deadline + 1_000_000_000
    result = await world.finish(run_id)
    assert result.value == ["text 0"]
    assert outside.probed == [1] and len(outside.keys) == 2 and len(set(outside.keys)) == 1


@pytest.mark.parametrize(("name", "status"), [("put", "completed"), ("mail", "failed")])
async def test_a_write_that_failed_on_the_way_is_repeated_only_when_it_may_be(
    make: Make, name: str, status: str
) -> None:
    world = await make(act, keeper)
    outside.fails = 1
    result = await world.run(act, [name])
    assert (result.status, len(outside.keys)) == (status, 2 if name == "put" else 1)
    assert len(set(outside.keys)) == 1


@pytest.mark.parametrize("code", ["deadline", "saturated", "version"])
@pytest.mark.parametrize("error", [TransientError, PermanentError])
async def test_a_tool_that_borrows_a_word_of_the_gateway_is_not_taken_to_be_uncalled(
    make: Make, code: str, error: type[TransientError | PermanentError]
) -> None:
    @tool(side_effect="write", idempotency="at_most_once")
    async def wire(text: str, *, key: str) -> str:
        """Sends, and hears nothing in time."""
        outside.keys.append(key)
        raise error("the other side said nothing in time", code=code)

    world = await make(act, agent("sender", "Sends.", tools=[wire]))
    result = await world.run(act, ["wire"])
    reason = StopReason.side_effect_unknown if error is TransientError else StopReason.tool_failure
    assert (result.reason, len(outside.keys)) == (reason, 1)
    assert error is TransientError or (result.error is not None and result.error.code == f"tool_{code}")


@pytest.mark.rule("R14")
async def test_a_write_canceled_in_flight_is_unknown(make_on_each: Make) -> None:
    world = await make_on_each(act, keeper)
    outside.hold = True
    run_id = await world.submit(act, ["put"])
    await world.until(lambda: len(outside.keys) == 1)
    await world.store.cancel(run_id, "bob", world.clock())
    result = await world.finish(run_id)
    assert result.reason is StopReason.canceled and result.facts == {"by": "bob"}
    [outcome] = await world.outcomes(run_id)
    assert (outcome.result, outcome.error and outcome.error.reason) == ("unknown", "side_effect_unknown")


@tool(side_effect="write", idempotency="at_most_once", timeout=3_600)
async def deaf(text: str, *, key: str) -> str:
    """Does not hear that it is to stop."""
    outside.keys.append(key)
    while not outside.released.is_set():
        try:
            await outside.released.wait()
        except asyncio.CancelledError:
            outside.probed.append(1)
    return text


deaf_keeper = agent("deaf_keeper", "Keeps.", tools=[deaf])


@pytest.mark.rule("R14")
async def test_a_canceled_effect_that_does_not_stop_is_left_behind(make_on_each: Make) -> None:
    world = await make_on_each(act, deaf_keeper)
    world.use(cancel_grace=0.05)
    outside.released = asyncio.Event()
    run_id = await world.submit(act, ["deaf"])
    await world.until(lambda: len(outside.keys) == 1)
    await world.store.cancel(run_id, "bob", world.clock())
    result = await world.finish(run_id)
    assert result.reason is StopReason.canceled
    [outcome] = await world.outcomes(run_id)
    assert outcome.result == "unknown"
    outside.released.set()


@workflow
async def careful(ctx: Context, _: None) -> str:
    try:
        await ctx.step(_once, repeatable=False)
    except SideEffectUnknown as error:
        return str(error)
    return "known"


async def _once() -> None:
    outside.keys.append("once")
    if outside.hold:
        await asyncio.Event().wait()


async def test_a_step_that_may_not_be_repeated_waits_for_a_person_after_a_crash(make_on_each: Make) -> None:
    world = await make_on_each(careful)
    outside.hold = True
    run_id = await world.submit(careful)
    await world.until(lambda: outside.keys == ["once"])
    await world.crash()
    await world.answer(run_id, "fail")
    result = await world.finish(run_id)
    assert "may have happened" in result.value and outside.keys == ["once"]


@pytest.mark.promise("F1")
async def test_a_denied_write_reaches_nobody_and_is_an_observation(make: Make) -> None:
    policy = '@id("all") permit (principal, action, resource);\n'
    policy += '@id("no") @reason("not today") forbid (principal, action, resource == Capability::"mail");'
    world = await make(act, keeper, policy=policy)
    world.decide(calls("mail", text="x"), {"answer": "could not"})
    result = await world.run(keeper, "go")
    assert (result.value, outside.keys) == ("could not", [])
    [refusal] = [o for o in await world.outcomes(result.run_id) if o.effect == "call"]
    assert refusal.result == "refused" and refusal.error is not None and "not today" in refusal.error.message


APPROVAL = """
@id("all") permit (principal, action, resource);
@id("ask") @outcome("approval") @reason("mails need a yes") forbid (principal, action, resource == Capability::"mail");
"""


async def ask_for_mail(make: Make) -> tuple[World, str, Any]:
    world = await make(act, keeper, policy=APPROVAL)
    run_id = await world.submit(act, ["mail"])
    await world.settle()
    [request] = await world.store.requests()
    return world, run_id, request


@pytest.mark.promise("F3")
async def test_an_approved_write_is_made_once_and_the_yes_is_on_record(make_on_each: Make) -> None:
    world, run_id, request = await ask_for_mail(make_on_each)
    assert outside.keys == [] and "mails need a yes" in request.prompt and "text 0" in request.prompt
    await world.crash()
    await world.store.resolve(request.request_id, "approved", "bob", START, None)
    assert (await world.finish(run_id)).value == ["text 0"]
    assert len(outside.keys) == 1
    [yes] = [outcome for outcome in await world.outcomes(run_id) if outcome.effect == "approval"]
    assert yes.facts == {"status": "approved", "by": "bob", "request_id": request.request_id}


@pytest.mark.promise("F3")
@pytest.mark.parametrize(("status", "by", "said"), [("denied", "bob", "denied by bob"), ("approved", "ana", "ana")])
async def test_a_no_or_a_yes_of_the_requester_is_a_refusal(make: Make, status: str, by: str, said: str) -> None:
    world, run_id, request = await ask_for_mail(make)
    await world.store.resolve(request.request_id, status, by, START, None)
    result = await world.finish(run_id)
    assert result.reason is StopReason.policy_denied and outside.keys == []
    assert result.error is not None and said in result.error.message
