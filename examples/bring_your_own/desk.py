"""The desk: Retinue's tools, and the workflows that adopt what was written elsewhere.

`desk` runs the pydantic-ai agent of support.py, `translate` a plain function that knows only OpenAI's client.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Tool
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.toolsets import FunctionToolset
from support import support

from retinue import Context, Doors, tool, workflow
from retinue.runs.errors import PolicyDenied

BOOK = Path(os.environ.get("DESK_BOOK", Path(__file__).parent / "out" / "book.jsonl"))


def book(key: str, **line: Any) -> str:
    """Write a line into the shop's book; a key that stands there already is the same line."""
    BOOK.parent.mkdir(exist_ok=True)
    lines = [json.loads(text) for text in BOOK.read_text().splitlines()] if BOOK.exists() else []
    if all(known["key"] != key for known in lines):
        with BOOK.open("a") as file:
            file.write(json.dumps({"key": key, **line}) + "\n")
    return f"{line['what'][0].upper()}-{key[:4]}"


@tool(side_effect="write", idempotency="idempotent")
def open_ticket(subject: str, *, key: str) -> str:
    """Open a ticket for the people of the desk; returns its number."""
    return book(key, what="ticket", subject=subject)


@tool(side_effect="write", idempotency="idempotent")
def refund(order: str, amount: float, *, key: str) -> str:
    """Pay back what was paid for an order; returns the number of the payment."""
    return book(key, what="refund", order=order, amount=amount)


def toolset(doors: Doors, *names: str) -> FunctionToolset[Any]:
    """Retinue's tools as tools of pydantic-ai. The model is told of a refusal and may go on."""

    def adapted(name: str) -> Any:
        async def call(**arguments: Any) -> Any:
            try:
                return await doors.call(name, **arguments)
            except PolicyDenied as error:
                return f"refused: {error}"

        return call

    return FunctionToolset(
        [Tool.from_schema(adapted(spec.name), spec.name, spec.description, spec.input_schema)
         for spec in doors.tools(*names)]
    )  # fmt: skip


async def ask_support(doors: Doors, message: str) -> dict[str, Any]:
    """The agent as it is, with Retinue's model and two of its tools."""
    async with AsyncOpenAI(base_url=doors.base_url, api_key=doors.api_key) as client:
        model = OpenAIChatModel(doors.model, provider=OpenAIProvider(openai_client=client))
        answer = await support.run(message, model=model, toolsets=[toolset(doors, "open_ticket", "refund")])
    return answer.output.model_dump()


async def ask_for_translation(doors: Doors, text: str) -> str:
    """No framework: OpenAI's own client, with a streamed reply."""
    messages: Any = [{"role": "user", "content": f"Say it in German: {text}"}]
    async with AsyncOpenAI(base_url=doors.base_url, api_key=doors.api_key) as client:
        stream: Any = await client.chat.completions.create(model=doors.model, messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@workflow
async def desk(ctx: Context, message: str) -> dict[str, Any]:
    answer: dict[str, Any] = await ctx.adopt(ask_support, message)
    return answer


@workflow
async def translate(ctx: Context, text: str) -> str:
    return str(await ctx.adopt(ask_for_translation, text))
