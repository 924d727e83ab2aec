"""Memory: written through the gate, once, with provenance; recalled by words within a scope and a tenant."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.worlds import World, ended
from tests.unit.runs.conftest import Make

from retinue.runs.asked import questions
from retinue.runs.context import Context
from retinue.runs.contracts import Status, StopReason
from retinue.runs.definitions import workflow
from retinue.runs.errors import PolicyDenied, StoreFull
from retinue.runs.memories import Memory, Recall, Space
from retinue.store.memories import Listing

READS_ONLY = """
@id("requests") permit (principal, action == Action::"request", resource);
@id("recall") @reason("memory may be read")
permit (principal, action == Action::"memory", resource) when { context.side_effect == "read" };
"""
ASKS = (
    READS_ONLY
    + """
@id("writes") permit (principal, action == Action::"memory", resource);
@id("ask") @outcome("approval") @reason("what a tenant remembers needs a yes")
forbid (principal, action == Action::"memory", resource == Memory::"tenant") when { context.side_effect == "write" };
"""
)
FACTS = ("The blue lamp is broken.", "Ana likes trains and the color green.", "Trains to Rome leave at nine.")


@workflow
async def learner(ctx: Context, given: dict[str, Any]) -> Any:
    """Remembers what it is told, then says what it recalls."""
    ids = [await ctx.remember(fact, **given.get("with", {})) for fact in given.get("facts", ())]
    found = await ctx.recall(given.get("query", ""), scope=given.get("in", "agent"), **given.get("how", {}))
    return {"ids": ids, "found": [memory.content for memory in found]}


@workflow
async def other(ctx: Context, given: dict[str, Any]) -> Any:
    """Another workflow, with a memory of its own."""
    found = await ctx.recall(given["query"], scope=given.get("in", "agent"), of=given.get("of"))
    return [memory.content for memory in found]


@workflow
async def diarist(ctx: Context, given: Any) -> Any:
    """Keeps one memory by its key, forgets it, and stands still in between."""
    first = await ctx.remember({"mood": "good"}, key="mood")
    await ctx.sleep("1h")
    second = await ctx.remember({"mood": "better"}, key="mood", tags=["mood"])
    seen = [memory.content for memory in await ctx.recall("mood")]
    gone = [await ctx.forget("mood"), await ctx.forget("mood"), await ctx.forget(first)]
    return [first != second, seen, gone, await ctx.recall("mood")]


@workflow
async def careful(ctx: Context, given: Any) -> str:
    """Says what the gate says."""
    try:
        return await ctx.remember("the code is 1234", scope="tenant")
    except PolicyDenied as error:
        return f"denied: {error}"


async def kept(world: World, *spaces: Space, text: str = "", tenant: str = "acme") -> list[Memory]:
    """What is remembered, asked of the port itself."""
    return await world.store.memories.recall(tenant, Recall(spaces=spaces, text=text, k=50, at=world.clock()))


LEARNERS = Space(scope="agent", owner="learner")


@pytest.mark.promise("G2")
async def test_a_memory_is_found_by_its_words_in_later_runs(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    first = await world.run(learner, {"facts": FACTS})
    assert first.value["found"] == list(reversed(FACTS))
    later = await world.run(learner, {"query": "When do the trains leave for Rome?"})
    assert later.value["found"] == [FACTS[2], FACTS[1]]
    assert (await world.run(learner, {"query": "submarine"})).value["found"] == []
    filled = await world.run(learner, {"query": "lamps", "how": {"k": 2, "fill": True}})
    assert filled.value["found"] == [FACTS[0], FACTS[2]]


@pytest.mark.promise("G2")
async def test_a_memory_says_who_wrote_it_when_and_from_what(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    done = await world.run(learner, {"facts": FACTS[:1], "with": {"tags": ["house"]}})
    [memory] = await kept(world, LEARNERS)
    assert memory.memory_id == done.value["ids"][0] and memory.tags == ("house",)
    assert (memory.run_id, memory.step, memory.principal) == (done.run_id, "0/remember#0", "ana")
    assert (memory.agent, memory.version) == ("learner", learner.version)
    intents = {intent.effect: intent for intent in await world.intents(done.run_id)}
    assert memory.at == intents["remember"].at and intents["remember"].writes and not intents["recall"].writes


@pytest.mark.promise("G2", "F1")
async def test_scopes_and_tenants_do_not_see_each_other(make_on_each: Make) -> None:
    world = await make_on_each(learner, other)
    await world.run(learner, {"facts": FACTS})
    await world.run(learner, {"facts": ["Trains are for ana."], "with": {"scope": "principal"}})
    await world.run(learner, {"facts": ["Trains for all."], "with": {"scope": "tenant"}})
    assert (await world.run(other, {"query": "trains"})).value == []
    assert (await world.run(other, {"query": "trains", "of": "learner"})).value == [FACTS[2], FACTS[1]]
    assert (await world.run(other, {"query": "trains", "in": "principal"})).value == ["Trains are for ana."]
    assert (await world.run(other, {"query": "trains", "in": "principal"}, principal_id="eve")).value == []
    both = {"query": "trains", "in": ["tenant", "principal"]}
    assert sorted((await world.run(other, both)).value) == ["Trains are for ana.", "Trains for all."]
    for scope in ("agent", "principal", "tenant"):
        stolen = await world.run(other, {"query": "trains", "in": scope, "of": None}, tenant_id="evil")
        assert stolen.value == []
    assert (await world.run(learner, {"query": "trains"}, tenant_id="evil")).value["found"] == []


@pytest.mark.promise("G2", "F1")
async def test_without_a_rule_memory_is_read_and_not_written(make: Make) -> None:
    world = await make(learner, policy=READS_ONLY)
    done = await world.run(learner, {"facts": FACTS})
    assert ended(done) == (Status.failed, "policy_denied")
    assert done.error is not None and "the memory of agent learner may not be written" in done.error.message
    assert (await world.run(learner, {})).value["found"] == [] and await kept(world, LEARNERS) == []


@pytest.mark.promise("G2", "F3")
@pytest.mark.parametrize("says", ["approved", "denied"])
async def test_a_write_that_needs_a_yes_waits_for_it(make_on_each: Make, says: str) -> None:
    world = await make_on_each(careful, policy=ASKS)
    run_id = await world.submit(careful, None)
    request = await world.asked(run_id)
    assert request.kind == "approval" and "the code is 1234" in request.prompt
    tenants = Space(scope="tenant", owner="")
    assert await kept(world, tenants) == []
    await world.crash()
    await world.store.resolve(request.request_id, says, "ben", world.clock())
    done = await world.finish(run_id)
    found = [memory.content for memory in await kept(world, tenants)]
    assert found == (["the code is 1234"] if says == "approved" else [])
    assert str(done.value).startswith("denied") is (says == "denied")


@pytest.mark.promise("G2", "F3")
async def test_an_approver_may_change_what_is_remembered_and_not_whose_it_is(make_on_each: Make) -> None:
    world = await make_on_each(careful, policy=ASKS)
    run_id = await world.submit(careful, None)
    request = await world.asked(run_id)
    changes = {"arguments": {"content": "there is a code", "scope": "agent", "owner": "careful"}}
    await world.store.resolve(request.request_id, "approved", "ben", world.clock(), changes)
    await world.crash()
    await world.finish(run_id)
    [memory] = await kept(world, Space(scope="tenant", owner=""), Space(scope="agent", owner="careful"))
    assert (memory.space.scope, memory.content) == ("tenant", "there is a code")
    [intent] = [one for one in await world.intents(run_id) if one.effect == "remember"]
    assert intent.content["content"] == "there is a code" and intent.facts["edited"]["by"] == "ben"
    request = await world.asked(await world.submit(careful, None))
    await world.store.resolve(request.request_id, "approved", "ben", world.clock(), {"arguments": {"content": ""}})
    done = await world.finish(request.run_id)
    assert "its approver changed what is to be remembered, and that: there is nothing to remember" in done.value


@pytest.mark.promise("G2", "F2")
async def test_what_the_gate_was_asked_about_memory_can_be_read_back(make: Make) -> None:
    world = await make(careful, policy=ASKS)
    run_id = await world.submit(careful, None)
    request = await world.asked(run_id)
    await world.store.resolve(request.request_id, "approved", "ben", world.clock())
    await world.finish(run_id)
    frames = [frame async for frame in world.store.read(run_id)]
    about = [each for each in questions(frames) if each.key is not None]
    assert {(each.request.stage, each.request.resource) for each in about} == {("memory", "tenant")}
    first, last = about[0], about[-1]
    assert (first.outcome, last.outcome) == ("approval_required", "allow")
    assert first.request.side_effect == "write" and last.approval is not None and last.approval.by == "ben"
    assert first.request.arguments["content"] == last.request.arguments["content"] == "the code is 1234"
    assert first.lacks == last.lacks == ()


@pytest.mark.promise("G2", "C1")
async def test_a_key_has_one_memory_and_a_crash_writes_none_twice(make_on_each: Make) -> None:
    world = await make_on_each(diarist)
    run_id = await world.submit(diarist)
    await world.settle()
    await world.crash()
    diarists = Space(scope="agent", owner="diarist")
    [mood] = await kept(world, diarists)
    assert (mood.key, mood.content) == ("mood", {"mood": "good"})
    done = await world.finish(run_id)
    assert done.value == [True, [{"mood": "better"}], [True, False, False], []]


@pytest.mark.promise("G2", "C1")
async def test_a_write_made_again_with_its_id_changes_nothing(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    await world.run(learner, {"facts": FACTS[:1], "with": {"key": "lamp"}})
    [old] = await kept(world, LEARNERS)
    newer = old.model_copy(update={"memory_id": "f" * 32, "content": "The lamp is mended."})
    await world.store.memories.remember("acme", newer)
    await world.store.memories.remember("acme", old)
    assert [memory.content for memory in await kept(world, LEARNERS)] == ["The lamp is mended."]
    for _ in range(2):
        assert await world.store.memories.forget("acme", LEARNERS, "lamp", "effect-1", world.clock()) == 1
    assert await world.store.memories.forget("acme", LEARNERS, "lamp", "effect-2", world.clock()) == 0


class Full:
    """Memories whose store has no room at first."""

    def __init__(self, memories: Any) -> None:
        self._memories = memories
        self.refused = 0

    async def remember(self, *given: Any) -> None:
        self.refused += 1
        if self.refused < 3:
            raise StoreFull("the disk of the store is full")
        await self._memories.remember(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memories, name)


@pytest.mark.promise("G2", "C3")
async def test_what_the_store_cannot_keep_now_is_kept_later_and_once(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    full = Full(world.store.memories)
    world.use(memories=full)
    done = await world.run(learner, {"facts": FACTS[:1]})
    assert full.refused == 3 and done.value["found"] == [FACTS[0]]
    full.refused = -10
    failed = await world.run(learner, {"facts": FACTS[:1]})
    assert ended(failed) == (Status.failed, "tool_failure") and len(await kept(world, LEARNERS)) == 1


@pytest.mark.promise("G2")
async def test_time_takes_a_memory_away(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    await world.run(learner, {"facts": FACTS[:1], "with": {"ttl": "1h"}})
    assert (await world.run(learner, {"query": "lamp"})).value["found"] == [FACTS[0]]
    world.clock.advance(3_601)
    assert (await world.run(learner, {"query": "lamp"})).value["found"] == []
    assert (await world.run(learner, {})).value["found"] == []


@pytest.mark.promise("G2")
async def test_tags_narrow_what_is_found(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    await world.run(learner, {"facts": FACTS[:1], "with": {"tags": ["house", "todo"]}})
    await world.run(learner, {"facts": FACTS[1:], "with": {"tags": ["ana"]}})
    assert (await world.run(learner, {"how": {"tags": ["house", "todo"]}})).value["found"] == [FACTS[0]]
    assert (await world.run(learner, {"query": "trains", "how": {"tags": ["house"]}})).value["found"] == []
    assert (await world.run(learner, {"query": "lamp", "how": {"tags": ["house"]}})).value["found"] == [FACTS[0]]


@pytest.mark.promise("G2", "C3")
async def test_a_fork_asks_before_it_writes_the_same_memory_again(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    first = await world.run(learner, {"facts": FACTS[:1]})
    fork_id = await world.fork(first.run_id, "start")
    request = await world.asked(fork_id)
    assert "has written this very memory already" in request.prompt
    await world.store.resolve(request.request_id, "approved", "ben", world.clock())
    assert len((await world.finish(fork_id)).value["found"]) == 2


@pytest.mark.promise("F3")
async def test_a_yes_of_the_requester_lets_no_fork_write_a_memory_again(make_on_each: Make) -> None:
    world = await make_on_each(learner)
    first = await world.run(learner, {"facts": FACTS[:1]})
    fork_id = await world.fork(first.run_id, "start")
    request = await world.asked(fork_id)
    await world.store.resolve(request.request_id, "approved", "ana", world.clock())
    done = await world.finish(fork_id)
    assert done.reason is StopReason.policy_denied and "has written this very memory already" in done.problem
    assert len(await world.store.memories.listed(Listing())) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"facts": [""]}, "nothing to remember"),
        ({"facts": ["x" * 40_000]}, "bytes are more than"),
        ({"facts": ["x"], "with": {"key": "k" * 300}}, "give 1 to 200 letters"),
        ({"facts": ["x"], "with": {"scope": "world"}}, "it is one of agent, principal, tenant, instance"),
        ({"facts": ["x"], "with": {"scope": "instance"}}, "belongs to no instance"),
        ({"facts": ["x"], "with": {"scope": "principal", "of": "eve"}}, "not another principal's"),
        ({"how": {"k": 0}}, "give 1 to 100"),
    ],
)
async def test_what_cannot_be_remembered_is_said(make: Make, given: dict[str, Any], said: str) -> None:
    world = await make(learner)
    done = await world.run(learner, given)
    assert done.status is Status.failed and done.error is not None and said in done.error.message
