"""Calls of every kind of model client against the loopback server, for the contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.doubles.model_server import ModelServer
from tests.doubles.model_wire import Plan

from retinue.inference.catalog import Models, models_from
from retinue.runs.messages import Message, ModelReply, ModelRequest, ToolSpec

KINDS = ("chat", "responses", "anthropic")
SEARCH = ToolSpec(
    name="search",
    description="Find passages.",
    input_schema={"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
)
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "minLength": 1}, "citations": {"type": "array", "items": {}}},
    "required": ["answer"],
}
KEY = "sk-test-0123456789"


@asynccontextmanager
async def serving(
    plans: Sequence[Plan] | Any, *, cap: int = 1_000_000, **settings: Any
) -> AsyncIterator[tuple[ModelServer, Models]]:
    async with ModelServer(plans, **settings) as server:
        models = models_from(environ=environ_of(server.url), max_reply_bytes=cap)
        try:
            yield server, models
        finally:
            await models.close()


def environ_of(url: str) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
    }


def name_of(kind: str, url: str) -> str:
    names = {
        "chat": f"{url}/v1#test-model",
        "responses": "openai:gpt-5",
        "anthropic": "anthropic:claude-sonnet-4-5",
    }
    return names[kind]


def asking(model: str, text: str = "What is it?", **fields: Any) -> ModelRequest:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content=text))
    return ModelRequest(**{"model": model, "messages": messages, "timeout": 10.0, **fields})


async def call(kind: str, plan: Plan, streamed: bool = False, cap: int = 1_000_000, **fields: Any) -> ModelReply:
    async with serving([plan], cap=cap) as (server, models):
        on_delta = (lambda piece: None) if streamed else None
        return await models.complete(asking(name_of(kind, server.url), **fields), on_delta)


both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
every_kind = pytest.mark.parametrize("kind", KINDS)
