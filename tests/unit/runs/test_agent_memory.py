"""An agent's memory: recalled into the packet with source and age, proposed by the model, decided by the gate."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import to_json
from tests.doubles.worlds import World, calls, ended
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Json, Status
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import AnyEntry
from retinue.runs.options import Reset
from retinue.sessions.native import tool

NO_TENANT = """
@id("all") permit (principal, action, resource);
@id("none") @reason("the tenant's memory is closed")
forbid (principal, action == Action::"memory", resource == Memory::"tenant");
"""


@workflow
async def reflect(ctx: Context, ended: dict[str, Any]) -> str:
    """A follow-up that writes the memory of the agent whose answer it follows."""
    return await ctx.remember(f"Answered: {ended['output']}", of="host", key="last answer")


host = agent("host", "Answer.", memory=("agent", "principal"), follow_ups=[reflect])
guest = agent("guest", "Answer.", memory=["tenant"], reset=Reset(turns=1))
plain = agent("plain", "Answer.")


def packets(entries: list[AnyEntry]) -> list[list[dict[str, Json]]]:
    """The items of each packet."""
    records = [entry for entry in entries if entry.kind == "record"]
    return [list(record.facts["items"]) for record in records if record.topic == "context"]


async def told(world: World, run_id: str) -> list[str]:
    """What the model was sent in each turn, as text."""
    return [to_json(one.content["messages"]).decode() for one in await world.intents(run_id) if one.effect == "model"]


@pytest.mark.promise("G2", "G1")
async def test_what_a_model_proposes_is_kept_and_shown_to_the_next_run(make_on_each: Make) -> None:
    world = await make_on_each(host)
    kept = calls("remember", content="Ana wants answers in French.", scope="principal", key="language")
    world.decide(kept, {"answer": "Noted."}, {"answer": "Bonjour."}, {"answer": "Hello."})
    first = await world.run(host, "remember my language")
    assert ended(first) == (Status.completed, "success")
    [written] = [one for one in await world.outcomes(first.run_id) if one.effect == "remember"]
    world.decide({"answer": "Bonjour."})
    second = await world.run(host, "greet me")
    [shown] = await told(world, second.run_id)
    assert "Ana wants answers in French." in shown and "From the memory of principal ana" in shown
    [items] = packets(await world.entries(second.run_id))
    [item] = [item for item in items if item["source"] == f"memory:{written.content['memory_id']}"]
    assert item["kind"] == "memory" and item["included"] and item["fresh_at"] is not None
    stranger = await world.run(host, "greet me", principal_id="eve")
    assert "French" not in (await told(world, stranger.run_id))[0]


@pytest.mark.promise("G2", "F1")
async def test_what_the_gate_refuses_is_an_observation_and_no_memory(make: Make) -> None:
    world = await make(guest, policy=NO_TENANT)
    world.decide(calls("remember", content="a secret"), {"answer": "I could not."})
    done = await world.run(guest, "remember")
    assert ended(done) == (Status.completed, "success")
    seen = [entry for entry in await world.entries(done.run_id) if entry.kind == "record"]
    [observed] = [entry for entry in seen if entry.topic == "observation"]
    assert (observed.facts["kind"], observed.facts["result"]) == ("policy", "refused")
    assert "the tenant's memory is closed" in observed.content["data"]["refused"]
    closed = [entry.facts["name"] for entry in seen if entry.topic == "memory"]
    assert closed == ["tenant", "tenant"], "asked again by the fresh agent after its reset, and refused again"


@pytest.mark.promise("G2")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"content": "x", "scope": "tenant"}, "none of agent, principal"),
        ({"content": ""}, "nothing to remember"),
        ({}, "nothing to remember"),
        ({"content": "x", "key": 7}, "the key is no text"),
        ({"content": "x" * 40_000}, "bytes are more than"),
    ],
)
async def test_a_bad_proposal_is_refused_with_the_reason(make: Make, arguments: dict[str, Any], said: str) -> None:
    world = await make(host)
    world.decide(calls("remember", **arguments), {"answer": "well"})
    done = await world.run(host, "remember")
    [outcome] = [one for one in await world.outcomes(done.run_id) if one.effect == "remember"]
    assert outcome.error is not None and outcome.error.code == "invalid_arguments" and said in outcome.error.message
    assert done.value == "well"


@pytest.mark.promise("A11", "G2")
async def test_a_follow_up_writes_what_the_next_run_recalls(make_on_each: Make) -> None:
    world = await make_on_each(host)
    world.decide({"answer": "Forty-two trains."})
    await world.run(host, "how many trains?")
    await world.settle()
    world.decide({"answer": "As before."})
    second = await world.run(host, "how many trains again?")
    assert "Answered: Forty-two trains." in (await told(world, second.run_id))[0]


async def test_an_agent_without_memory_is_as_it_was(make: Make) -> None:
    world = await make(plain)
    world.decide({"answer": "yes"})
    done = await world.run(plain, "well?")
    assert [one.effect for one in await world.intents(done.run_id)] == ["model"]
    assert agent("plain", "Answer.", memory=()).version == plain.version
    assert agent("plain", "Answer.", memory="agent").version != plain.version


def test_what_is_no_memory_is_refused_where_it_is_written() -> None:
    @tool(side_effect="read")
    def remember(content: str) -> str:
        """Clashes."""
        return content

    with pytest.raises(InvalidInput, match="memory scope 'world': it is one of agent"):
        agent("a", "b", memory=["world"])
    with pytest.raises(InvalidInput, match="give the tool another name"):
        agent("a", "b", memory="agent", tools=[remember])
