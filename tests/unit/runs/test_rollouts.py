"""Stages of versions: shadow writes nothing, a canary is a stable share, a stop holds, versions stand side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.doubles.worlds import World, calls
from tests.unit.runs.conftest import Make

from retinue.ingress.versions import version_of
from retinue.runs.context import Context
from retinue.runs.contracts import Json, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import ConfigError, InvalidInput, TransientError, UnknownName
from retinue.runs.registry import Registry
from retinue.runs.rollouts import WHOLE, Kind, Rollout, Stage, Table, admitted
from retinue.sessions.native import tool

pytestmark = pytest.mark.promise("F4")

DONE: list[str] = []
OPEN = '@id("all") @reason("anything") permit (principal, action, resource);'
HALT = OPEN + (
    '@id("halt") @reason("no calls after a stop") forbid (principal, action == Action::"capability", resource)'
    ' when { context.facts.flags.hasTag("rollout_stopped") && context.facts.flags.getTag("rollout_stopped") };'
)


@tool(side_effect="write", idempotency="idempotent")
def send(text: str, *, key: str) -> str:
    """Send a text."""
    DONE.append(text)
    return "sent"


@tool(side_effect="read")
def look(text: str) -> str:
    """Look a text up."""
    DONE.append(text)
    return "seen"


@tool(side_effect="write", idempotency="at_most_once")
def fire(text: str) -> str:
    """Do what cannot be repeated, and lose the answer."""
    DONE.append(text)
    raise TransientError("the line broke")


worker = agent("worker", "Work.", tools=[send, look, fire])


@workflow
async def boss(ctx: Context, input: str) -> Json:
    return await ctx.run("worker", input)


@dataclass
class Moved:
    """Rollouts as somebody has moved them."""

    rows: list[Rollout] = field(default_factory=list)

    @property
    def table(self) -> Table:
        return Table(self.rows)

    async def look(self) -> Table:
        return self.table

    async def stop(self, wanted: Rollout) -> bool:
        self.rows.append(wanted)
        return True

    def set(self, kind: Kind, name: str, stage: Stage, version: str = "1", **given: Any) -> None:
        self.rows.append(Rollout(kind=kind, name=name, version=version, stage=stage, **given))


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    DONE.clear()


def prepared(world: World, *decisions: Json) -> Moved:
    moved = Moved()
    world.use(rollouts=moved)
    world.decide(*decisions)
    return moved


async def said(world: World, run_id: str) -> list[Any]:
    """The outcomes of calls in a run's journal."""
    return [each for each in await world.entries(run_id) if each.kind == "outcome" and each.effect == "call"]


async def test_a_write_in_shadow_is_recorded_and_not_made_and_the_agent_goes_on(make: Make) -> None:
    world = await make(worker, policy=OPEN)
    moved = prepared(world, calls("send", text="a"), calls("look", text="b"), {"answer": "done"})
    moved.set("capability", "send", "shadow")
    moved.set("capability", "look", "shadow")
    result = await world.run("worker", "go")
    assert (result.status, result.value) == (Status.completed, "done")
    assert DONE == ["b"], "what reads is executed"
    first, second = await said(world, result.run_id)
    assert first.result == "refused" and "retinue.shadow" in first.facts["gate"]["rules"]
    assert "on record and was not made" in first.error.message
    [record] = [each for each in await world.entries(result.run_id) if each.kind == "record" and each.topic == "asked"]
    assert record.content["arguments"]["text"] == "a", "what it would have done is in the journal"
    assert second.result == "ok"


async def test_a_run_of_an_agent_in_shadow_writes_nothing_and_nothing_below_it_does(make: Make) -> None:
    world = await make(worker, boss, policy=OPEN)
    prepared(world, calls("send", text="a"), {"answer": "done"})
    result = await world.run("boss", "go", shadow=True)
    assert result.value == "done" and DONE == []


async def test_a_canary_is_given_to_its_share_and_refused_to_others_with_the_reason(make: Make) -> None:
    world = await make(worker, policy=OPEN)
    moved = prepared(world, calls("send", text="a"), {"answer": "done"})
    moved.set("capability", "send", "canary", share=0)
    result = await world.run("worker", "go")
    [refused] = await said(world, result.run_id)
    assert DONE == [] and refused.error.code == "canary" and "is in canary for 0 %" in refused.error.message
    moved.set("capability", "send", "canary", share=WHOLE)
    await world.run("worker", "go")
    assert DONE == ["a"]


def test_the_share_of_a_canary_is_stable_and_about_right() -> None:
    rollout = Rollout(kind="agent", name="a", version="2", stage="canary", share=1_000)
    names = [f"run-{number}" for number in range(4_000)]
    inside = [name for name in names if admitted(rollout, "acme", name)]
    assert inside == [name for name in names if admitted(rollout, "acme", name)]
    assert 300 < len(inside) < 500
    wider = rollout.model_copy(update={"share": 2_000})
    assert all(admitted(wider, "acme", name) for name in inside), "who has it keeps it when the share grows"


async def test_a_canary_whose_write_nobody_knows_of_stops_by_itself(make: Make) -> None:
    never = OPEN + ('@id("never") @reason("nobody is there") forbid (principal, action == Action::"doubt", resource);')
    world = await make(worker, policy=never)
    moved = prepared(world, calls("fire", text="a"), {"answer": "done"})
    moved.set("capability", "fire", "canary", share=WHOLE)
    result = await world.run("worker", "go")
    assert result.reason is StopReason.side_effect_unknown
    assert [(row.stage, row.by) for row in moved.rows[1:]] == [("stopped", "runtime")]
    assert result.run_id in moved.rows[-1].reason
    [record] = [
        each for each in await world.entries(result.run_id) if each.kind == "record" and each.topic == "rollout"
    ]
    assert record.facts["stage"] == "stopped"


@pytest.mark.parametrize(("policy", "calls_on"), [(OPEN, True), (HALT, False)])
async def test_after_a_stop_new_runs_are_denied_and_rules_decide_for_those_in_progress(
    make: Make, policy: str, calls_on: bool
) -> None:
    world = await make(worker, policy=policy)
    moved = prepared(world, calls("send", text="a"), {"answer": "done"})
    run_id = await world.submit("worker", "go")
    await world.lease()
    moved.set("capability", "send", "stopped", at=world.clock(), by="ana", reason="it hurts")
    await world.finish(run_id)
    assert (["a"] if calls_on else []) == DONE
    later = await world.run("worker", "go")
    last = (await said(world, later.run_id))[-1]
    assert last.result == "refused" and "retinue.stopped" in last.facts["gate"]["rules"]
    assert (["a"] if calls_on else []) == DONE


async def test_an_agent_that_was_stopped_admits_no_new_run(make: Make) -> None:
    world = await make(worker, policy=OPEN)
    moved = prepared(world, {"answer": "done"})
    moved.set("agent", "worker", "stopped", version="", at=1, by="ana", reason="wrong answers")
    result = await world.run("worker", "go")
    assert result.reason is StopReason.blocked and "was stopped before this run began" in result.problem


# -- versions side by side -------------------------------------------------------------------------------------------

OLD = agent("helper", "Help.", version="1")
NEW = agent("helper", "Help better.", version="2", stage="canary")


def test_new_runs_are_pinned_to_the_version_that_the_table_gives_them() -> None:
    registry = Registry([], [OLD, NEW])
    names = [f"run-{number}" for number in range(2_000)]
    for share, low, high in ((0, 0, 0), (1_000, 120, 280), (WHOLE, 2_000, 2_000)):
        table = Table([Rollout(kind="agent", name="helper", version="2", stage="canary", share=share)])
        got = [version_of(registry, table, "helper", ("acme", name)).version for name in names]
        assert low <= got.count("2") <= high
    stopped = Table([Rollout(kind="agent", name="helper", version="2", stage="stopped", by="x", reason="y")])
    assert {version_of(registry, stopped, "helper", ("acme", name)).version for name in names} == {"1"}
    assert version_of(registry, Table(), "helper@2", ("acme", "r")) is NEW
    with pytest.raises(UnknownName, match="has no version '3': there is 1, 2"):
        version_of(registry, Table(), "helper@3", ("acme", "r"))
    with pytest.raises(InvalidInput, match="was stopped by x: y"):
        version_of(registry, stopped, "helper@2", ("acme", "r"))


async def test_children_get_a_version_by_their_root_and_running_ones_keep_theirs(make: Make) -> None:
    @workflow
    async def asks(ctx: Context, input: str) -> Json:
        return await ctx.run("helper", input)

    world = await make(OLD, NEW, asks, policy=OPEN)
    moved = prepared(world, {"answer": "done"})
    moved.set("agent", "helper", "canary", version="2", share=WHOLE)
    run_id = await world.submit("asks", "go")
    assert (await world.finish(run_id)).ok
    assert (await child_of(world, run_id)).target_version == "2"
    moved.set("agent", "helper", "stopped", version="2", at=world.clock(), by="ana", reason="no")
    other = await world.submit("asks", "go")
    assert (await world.finish(other)).ok
    assert (await child_of(world, other)).target_version == "1", "the one before takes over"


async def child_of(world: World, run_id: str) -> Any:
    """The request of a run's only child."""
    [record] = await world.store.list_runs(RunQuery(parent_run_id=run_id))
    return (await world.entries(record.run_id))[0].request


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ([agent("helper", "Other.")], "give each a `version` and a `stage`"),
        ([agent("helper", "Other.", version="2")], "at stage 'full'"),
        ([agent("helper", "Other.", version="2", stage="canary", output=int)], "differ in `input`, `output`"),
        ([NEW, agent("helper", "Third.", version="3", stage="canary")], "at stage 'canary'"),
    ],
)
def test_versions_side_by_side_need_versions_stages_and_one_type(others: list[Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Registry([], [OLD, *others])


async def test_a_second_look_at_nothing_moved_is_no_work(make: Make) -> None:
    """The stage of a call costs nothing where nothing was ever moved and nothing is in shadow."""
    world = await make(worker, policy=OPEN)
    prepared(world, calls("send", text="a"), {"answer": "done"})
    result = await world.run("worker", "go")
    [call] = await said(world, result.run_id)
    assert DONE == ["a"] and call.result == "ok"
    [intent] = [each for each in await world.intents(result.run_id) if each.effect == "call"]
    assert "rollout" not in intent.facts.get("asked", {}) and "facts" not in intent.facts.get("asked", {})
