"""Rollouts in both stores: the newest change holds, who moved it is in the journal, two stops at once are one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.doubles.places import Place, Store
from tests.doubles.projects import project
from tests.doubles.shapes import START, new_run
from tests.doubles.sides import at_once, lags, two_sides

from retinue.ingress.client import Client
from retinue.ingress.rollout import Change, RolloutDesk
from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.journal import Record
from retinue.runs.ownership import NewRun
from retinue.runs.rollouts import Rollout, Stage

pytestmark = pytest.mark.promise("F4")


def rollout(stage: Stage, name: str = "send", at: int = START, **given: object) -> Rollout:
    known = {"kind": "capability", "name": name, "version": "1", "by": "ana", "reason": "why not"}
    return Rollout.model_validate(known | given | {"stage": stage, "at": at})


def told(run_id: str, change: Rollout) -> NewRun:
    made = new_run(run_id, target="retinue.rollout")
    record = Record(at=change.at, topic="rollout", by="runtime", facts=change.model_dump(mode="json"))
    return NewRun(made.request, None, change.at, past=(record,))


async def test_the_newest_change_holds_and_all_are_kept(place: Place) -> None:
    store = place.open()
    await store.rollouts.move(rollout("shadow"), told("t1", rollout("shadow")))
    await store.rollouts.move(rollout("canary", share=500), told("t2", rollout("canary")))
    await store.rollouts.move(rollout("full", name="look"), told("t3", rollout("full")))
    assert {row.name: row.stage for row in await store.rollouts.listed()} == {"send": "canary", "look": "full"}
    table = await store.rollouts.look()
    assert table.rows["capability", "send", "1"].share == 500
    assert [row.stage for row in await store.rollouts.history("send", 10)] == ["canary", "shadow"]
    assert len(await store.rollouts.history(None, 2)) == 2
    await store.close()


async def test_who_moved_what_and_why_is_a_run_that_is_over(place: Place) -> None:
    store = place.open()
    change = rollout("canary", share=500, reason="looks fine")
    await store.rollouts.move(change, told("t1", change))
    record = await store.get("t1")
    assert (record.status, record.target) == (Status.completed, "retinue.rollout")
    entries = [entry for frame in await store.tail(0, 10) for entry in frame.entries]
    assert [entry.kind for entry in entries] == ["accepted", "record", "finished"]
    assert entries[1].facts == change.model_dump(mode="json")  # type: ignore[union-attr]
    await store.close()


async def test_a_change_is_seen_by_others_within_a_second_and_at_once_by_who_made_it(place: Place) -> None:
    first, second = place.open(), place.open()
    assert (await second.rollouts.look()).rows == {}
    assert await first.rollouts.stop(rollout("stopped"))
    assert ("capability", "send", "1") in (await first.rollouts.look()).rows
    assert (await second.rollouts.look()).rows == {}, "a look is shared by all steps of a second"
    second.rollouts._shared.forget()
    assert ("capability", "send", "1") in (await second.rollouts.look()).rows
    await first.close()
    await second.close()


@pytest.mark.rule("R10")
def test_two_stops_at_one_moment_are_one_or_say_the_same(place: Place) -> None:
    rounds = 40
    with two_sides(place) as sides:
        for number, lag in zip(range(rounds), lags(rounds), strict=True):
            name = f"tool{number}"

            async def stop(store: Store, name: str = name) -> bool:
                return await store.rollouts.stop(rollout("stopped", name=name))

            answers = at_once(sides, [stop, stop], lag)
            assert True in answers and all(isinstance(answer, bool) for answer in answers)
            found = sides[0].run(lambda store, name=name: store.rollouts.history(name, 10))  # type: ignore[misc]
            assert {row.stage for row in found} == {"stopped"}


MODULE = """
from retinue import agent, tool

@tool(side_effect="write", idempotency="idempotent", version="3", stage="shadow")
def send(text: str, *, key: str) -> str:
    "Send."
    return "sent"

one = agent("helper", "Help.", version="1", tools=[send])
two = agent("helper", "Help better.", version="2", stage="canary", tools=[send])
plain = agent("plain", "Say.")
"""


async def test_people_move_what_the_project_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moving.py").write_text(MODULE)
    settings = project(tmp_path, modules=["moving"])
    store = Place("sqlite", tmp_path).open()
    client = Client(settings, store)
    desk = RolloutDesk(client, store)
    assert {one.label: one.stage for one in await desk.listed()} == {"send@3": "shadow", "helper@2": "canary"}
    moved = await desk.move("send", Change("canary", 2_500, "ana", "it behaves"))
    assert (moved.kind, moved.version, moved.share) == ("capability", "3", 2_500)
    assert (await desk.move("plain", Change("stopped", None, "ana", "no"))).version == "", (
        "digests change with the code"
    )
    with pytest.raises(InvalidInput, match="name one of helper@1, helper@2"):
        await desk.move("helper", Change("full", None, "ana", ""))
    with pytest.raises(UnknownName, match="has version 3, not '4'"):
        await desk.move("send@4", Change("full", None, "ana", ""))
    with pytest.raises(InvalidInput, match="--share is for canary"):
        await desk.move("helper@2", Change("full", 100, "ana", ""))
    await desk.move("helper@2", Change("full", None, "ana", ""))
    await desk.move("helper@1", Change("stopped", None, "ana", "old"))
    handle = await client.submit("helper", "go")
    first = next(iter([frame async for frame in store.read(handle.run_id)])).entries[0]
    assert first.request.target_version == "2"  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match="agent plain was stopped by ana: no"):
        await client.submit("plain", "go")
    with pytest.raises(InvalidInput, match="helper@1 was stopped"):
        await client.submit("helper@1", "go")
    names = [record.target for record in await store.list_runs(RunQuery(limit=10))]
    assert names.count("retinue.rollout") == 4
    await client.close()
    await store.close()
