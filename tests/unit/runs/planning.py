"""An agent that plans, reads and writes, and what its journal says of that."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from tests.doubles.worlds import World

from retinue.runs.agent_state import AgentState
from retinue.runs.contracts import Budget
from retinue.runs.definitions import AgentSpec, agent
from retinue.runs.errors import TransientError
from retinue.runs.journal import AnyEntry, Checkpoint, Record
from retinue.sessions.native import tool

LONG = Budget(steps=100, hops=200)


@tool(side_effect="read")
def look(number: int) -> dict[str, str]:
    """Look something up."""
    return {"document": f"d{number}", "text": f"word {number} " * 60}


@tool(side_effect="write", idempotency="at_most_once")
def launch(target: str) -> str:
    """Something that goes wrong on the way and cannot be asked."""
    raise TransientError(f"the line to {target} broke", code="broken")


class Finding(BaseModel):
    answer: str
    quote: str


def planner(name: str = "planner", **options: Any) -> AgentSpec:
    return agent(name, "Plan.", tools=[look, launch], plans=True, budget=LONG, **options)


def plan(**arguments: Any) -> dict[str, Any]:
    return {"name": "plan", "arguments": arguments}


def records(entries: list[AnyEntry], topic: str) -> list[Record]:
    return [entry for entry in entries if isinstance(entry, Record) and entry.topic == topic]


def states(entries: list[AnyEntry]) -> list[AgentState]:
    return [AgentState.model_validate(entry.content) for entry in entries if isinstance(entry, Checkpoint)]


async def prompts(world: World, run_id: str) -> list[list[dict[str, Any]]]:
    """The messages of each model call."""
    return [intent.content["messages"] for intent in await world.intents(run_id) if intent.effect == "model"]
