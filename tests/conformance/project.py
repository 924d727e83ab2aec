"""What the official suite calls on a server that has tasks, as workflows: quick ones, slow ones, some that ask."""

from __future__ import annotations

from pydantic import BaseModel

from retinue import Context, workflow
from retinue.runs.errors import PermanentError

MODULE = __name__
CONFIRM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "confirm": {"type": "boolean"}},
    "required": ["confirm"],
}


class Greeting(BaseModel):
    """Whom to greet."""

    name: str


class Work(BaseModel):
    """How long to work."""

    seconds: float = 0
    label: str = ""


class File(BaseModel):
    """What to delete."""

    filename: str = ""


class Nothing(BaseModel):
    """Nothing is needed."""


@workflow
async def greet(ctx: Context, whom: Greeting) -> str:
    """Greet somebody."""
    return f"Hello, {whom.name}!"


@workflow
async def slow_compute(ctx: Context, work: Work) -> str:
    """Work for so many seconds."""
    await ctx.sleep(work.seconds)
    return f"{work.label} took {work.seconds:g} s"


@workflow
async def failing_job(ctx: Context, nothing: Nothing) -> str:
    """Fail after a while."""
    await ctx.sleep(2)
    raise PermanentError("this job always fails", code="always")


@workflow
async def confirm_delete(ctx: Context, file: File) -> str:
    """Delete a file after a yes."""
    said = await ctx.ask(f"Delete {file.filename}?", schema=CONFIRM)
    return f"{'deleted' if said['confirm'] else 'kept'} {file.filename}"


@workflow
async def asked(ctx: Context, question: str) -> bool:
    """Ask one thing."""
    return bool((await ctx.ask(question, schema=CONFIRM))["confirm"])


@workflow
async def multi_input(ctx: Context, nothing: Nothing) -> str:
    """Ask two things at once."""
    branches = await ctx.map(asked, ["Is it right?", "Are you sure?"])
    return str([branch.value for branch in branches])
