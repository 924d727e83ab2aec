"""A help desk agent as any pydantic-ai project has it. It has never heard of Retinue."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic_ai import Agent

ORDERS = {
    "A-7": "handed to the carrier on Monday, reported lost on Wednesday, 48.00 paid",
    "B-2": "delivered on Friday, 12.50 paid",
}


class Answer(BaseModel):
    """What the customer is told, and the ticket if one was opened."""

    reply: str
    ticket: str | None = None


support = Agent(
    name="support",
    output_type=Answer,
    instructions="You are the help desk of a shop. Look the order up before you promise anything.",
)


@support.tool_plain
def look_up(order: str) -> str:
    """Where an order is and what was paid for it."""
    return ORDERS.get(order, "there is no such order")
