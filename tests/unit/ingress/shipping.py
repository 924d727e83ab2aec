"""A project for agents elsewhere: an agent, workflows that ask, wait, fail and send, a tool that is gated."""

from __future__ import annotations

from pydantic import BaseModel

from retinue import Context, agent, tool, workflow
from retinue.runs.errors import PermanentError

MODULE = __name__
POLICY = """
@id("all") permit (principal, action, resource);
@id("sends") @outcome("approval") @reason("sending needs a person")
forbid (principal, action == Action::"capability", resource == Capability::"send");
"""


class Order(BaseModel):
    """What is to be shipped."""

    id: str
    amount: int


@tool(side_effect="write", idempotency="idempotent")
def send(order: str) -> str:
    """Send an order."""
    return f"sent {order}"


plain = agent("plain", "Answer the question.", tools=[send])


@workflow
async def ship(ctx: Context, order: Order) -> dict[str, str]:
    """Ship an order
    when somebody packs it."""
    packer = await ctx.ask("Who packs it?", parcel=order.id)
    return {"shipped": order.id, "by": str(packer)}


@workflow
async def dispatch(ctx: Context, order: Order) -> str:
    """Send an order after a yes."""
    said: str = await ctx.call(send, order=order.id)
    return said


@workflow
async def deliver(ctx: Context, order: Order) -> str:
    """Deliver what somebody ships."""
    shipped = await ctx.run(ship, order)
    return f"delivered {shipped['shipped']}"


@workflow
async def await_truck(ctx: Context, input: object) -> str:
    """Wait for the truck."""
    truck = await ctx.event("truck")
    return f"truck {truck['number']}"


@workflow
async def lose(ctx: Context, input: object) -> None:
    """Fail."""
    raise PermanentError("the parcel is lost", code="lost")


@workflow
async def recite(ctx: Context, count: int) -> str:
    """Say so many words."""
    return "word " * count
