"""A row that waits for a model, some times, one after the other: a project's module."""

from __future__ import annotations

from retinue import agent, tool


@tool(side_effect="read")
async def look(what: str) -> str:
    """Says what it was given: the work of a row is the waiting."""
    return what


waiter = agent("waiter", "Look, and say what you saw.", tools=[look])
