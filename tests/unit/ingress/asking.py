"""A project whose workflows ask with a schema: a form, a form of one field, an object that is no form; and without."""

from __future__ import annotations

from retinue import Context, workflow
from retinue.runs.contracts import Json

MODULE = __name__
BOXES: Json = {"type": "integer", "minimum": 1, "maximum": 9}
FORM: Json = {
    "type": "object",
    "properties": {"boxes": BOXES, "gift": {"type": "boolean", "default": False}},
    "required": ["boxes"],
}
PARCEL: Json = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
LIST: Json = {"type": "object", "properties": {"parcels": {"type": "array", "items": PARCEL}}, "required": ["parcels"]}


@workflow
async def pack(ctx: Context, nothing: Json) -> Json:
    """Ask for a form."""
    return await ctx.ask("How many boxes?", schema=FORM)


@workflow
async def count(ctx: Context, nothing: Json) -> Json:
    """Ask for one number."""
    return await ctx.ask("How many?", schema={"type": "object", "properties": {"boxes": BOXES}})


@workflow
async def gather(ctx: Context, nothing: Json) -> Json:
    """Ask for more than a form can say."""
    return await ctx.ask("Which parcels?", schema=LIST)


@workflow
async def chat(ctx: Context, nothing: Json) -> Json:
    """Ask for anything."""
    return await ctx.ask("What now?")
