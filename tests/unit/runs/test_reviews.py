"""A weak answer goes to a person: approved, edited or rejected, on record, over crashes, in every store."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from tests.doubles.worlds import World, calls, ended, world
from tests.unit.runs.conftest import Make

from retinue.ingress.awaiting import awaited_of
from retinue.ingress.inspection import inspect_run
from retinue.ingress.pending import commands
from retinue.runs.contracts import Branch, Json, Status
from retinue.runs.definitions import agent
from retinue.runs.patience import Patience
from retinue.sessions.native import tool
from retinue.store.store import Store


class Finding(BaseModel):
    """An answer with a quote."""

    answer: str
    quote: str = ""


@tool(side_effect="read")
def search(query: str) -> list[str]:
    """Search."""
    return [f"about {query}"]


def short(finding: Finding) -> str | None:
    """A rule that edits have to keep too."""
    return "say it in 20 letters" if len(finding.answer) > 20 else None


finder = agent("finder", "Find.", tools=[search], output=Finding, rules=[short], min_confidence=0.8, corrections=1)
GOOD, WEAK = {"answer": "hot", "quote": "about fire"}, {"answer": "cold", "quote": "made up"}


async def begun(world: World, *answers: Json) -> str:
    """A run whose model looks, then gives these answers, driven until it asks or ends."""
    world.decide(calls("search", query="fire"), *({"answer": answer} for answer in answers))
    run_id = await world.submit(finder, "is fire hot?")
    await world.settle()
    return run_id


async def reviewed(world: World, run_id: str, *said: Json) -> Branch:
    """The run's end after a person has said these things, each after a crash."""
    for value in said:
        await world.answer(run_id, value)
        await world.crash()
    return await world.finish(run_id)


@pytest.mark.promise("F5")
async def test_a_sure_answer_asks_nobody(make_on_each: Make) -> None:
    world = await make_on_each(finder)
    result = await world.finish(await begun(world, GOOD))
    assert ended(result) == (Status.completed, "success") and result.facts["confidence"] == 1.0


@pytest.mark.promise("F5")
async def test_a_weak_answer_is_shown_to_a_person_with_the_checks_that_were_weak(make_on_each: Make) -> None:
    world = await make_on_each(finder)
    run_id = await begun(world, WEAK)
    request = await world.asked(run_id)
    assert (await world.store.get(run_id)).status is Status.waiting_for_input
    assert "confidence 0.0, below 0.8: quotes 0/1" in request.prompt and '"quote":"made up"' in request.prompt
    assert request.facts["weak"] == ["quotes"] and request.facts["low_confidence"] == 0.0
    assert commands(awaited_of(request), run_id)[0] == f"retinue answer {request.request_id} approve"
    result = await reviewed(world, run_id, "approve")
    assert ended(result) == (Status.completed, "success") and result.value == WEAK
    assert (result.facts["reviewed"], result.facts["reviewed_by"]) == ("approved", "ben")
    assert result.facts["confidence"] == 0.0


@pytest.mark.promise("F5", "C1")
async def test_a_person_edits_within_schema_and_rules(make_on_each: Make) -> None:
    world = await make_on_each(finder)
    run_id = await begun(world, WEAK)
    result = await reviewed(
        world, run_id, "yes!", {"edit": {"answer": 1}}, {"edit": {"answer": "x" * 21}}, {"edit": {"answer": "warm"}}
    )
    assert result.value == {"answer": "warm", "quote": ""} and result.facts["reviewed"] == "edited"
    asked = [intent.content["prompt"] for intent in await world.intents(run_id) if intent.effect == "input"]
    assert len(asked) == 4 and "none of the ways" in asked[1] and "answer: " in asked[2] and "20 letters" in asked[3]
    records = [entry for entry in await world.entries(run_id) if entry.kind == "record"]
    [review] = [entry.facts for entry in records if entry.facts.get("what") == "review"]
    assert (review["verdict"], review["by"]) == ("edited", "ben")


@pytest.mark.promise("F5")
async def test_a_rejection_is_told_to_the_model_until_its_corrections_are_used_up(make_on_each: Make) -> None:
    world = await make_on_each(finder)
    run_id = await begun(world, WEAK, GOOD)
    result = await reviewed(world, run_id, {"reject": "that is invented"})
    assert result.value == GOOD and "reviewed" not in result.facts
    models = [intent for intent in await world.intents(run_id) if intent.effect == "model"]
    assert "ben rejected it: that is invented" in models[-1].content["messages"][-1]["content"]
    run_id = await begun(world, WEAK, WEAK)
    result = await reviewed(world, run_id, {"reject": "no"}, {"reject": "still no"})
    assert ended(result) == (Status.failed, "output_rejected")
    assert result.error is not None and "ben rejected it: still no" in result.error.message


@pytest.mark.promise("F5", "A6")
async def test_inspect_shows_the_newest_check_and_what_the_person_is_to_type(tmp_path: Path) -> None:
    async with world("sqlite", tmp_path, finder) as made:
        run_id = await begun(made, {"answer": "x" * 30}, WEAK)
        store = made.store
        assert isinstance(store, Store)
        seen = await inspect_run(store, run_id)
        assert seen.checked == "output passed; quotes 0/1, rules 1/1; confidence 0.0"
        [waits] = seen.waits
        assert (waits.name, waits.kind) == ("review", "input") and len(commands(waits, run_id)) == 3
        await made.answer(run_id, {"reject": "no"})
        await made.settle()
        assert (await inspect_run(store, run_id)).checked == "review rejected at confidence; no"


@pytest.mark.promise("F5")
async def test_an_answer_that_nothing_could_check_is_not_trusted(make: Make) -> None:
    talker = agent("talker", "Talk.", min_confidence=0.5)
    world = await make(talker)
    world.decide({"answer": "trust me, confidence 1.0"})
    run_id = await world.submit(talker, "sure?")
    assert "nothing could be checked" in (await world.asked(run_id)).prompt
    result = await reviewed(world, run_id, {"edit": "I do not know"})
    assert result.value == "I do not know"


@pytest.mark.promise("F5", "A9")
async def test_nobody_in_time_is_a_rejection(make: Make) -> None:
    world = await make(finder)
    world.use(patience=Patience(timeout=3_600.0))
    result = await world.finish(await begun(world, WEAK))
    assert ended(result) == (Status.failed, "output_rejected")
    assert result.error is not None and "nobody decided on it in time" in result.error.message
