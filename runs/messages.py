"""The typed protocol between the runtime and a model, whatever endpoint serves it.

Owns messages, tool specifications, the request and the reply. Knows no HTTP, no provider, no run in
progress: a request names the run only so that telemetry and scripted models can tell runs apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen, Json, Usage


class ToolCall(Frozen):
    """A capability the model wants called. `arguments` is None when `raw` is not a JSON object."""

    id: str
    name: str
    arguments: dict[str, Json] | None
    raw: str = ""


class Message(Frozen):
    """One message of a conversation. A `tool` message answers the call named by `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class ToolSpec(Frozen):
    """A tool as disclosed to a model: a name, what it is for, the JSON Schema of its arguments.

    `control` marks the runtime's own decisions (ask_human, hand_off, stop); they execute nothing.
    """

    name: str
    description: str
    input_schema: dict[str, Json]
    control: bool = False


class ModelRequest(Frozen):
    """One model call. `model` is a full name such as `openai:gpt-x` or `builtin:extractive`.

    `output_schema` is the JSON Schema of the structured answer (None: free text). `parameters` go to the
    endpoint as they are (temperature, seed, ...). `timeout` is in seconds for the whole call. `input_id`
    and `input_text` are what a scripted model matches; `turn` counts model calls of the run from 0.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    output_schema: dict[str, Json] | None = None
    output_name: str = "answer"
    parameters: dict[str, Json] = Field(default_factory=dict)
    max_tokens: int = 1024
    timeout: float = 60.0
    run_id: str = ""
    agent: str = ""
    turn: int = 0
    input_id: str | None = None
    input_text: str = ""
    traceparent: str | None = None


class ModelReply(Frozen):
    """What came back. `raw` is the endpoint's own body (joined, when streamed), kept for traces.

    `usage.micros` is the price of this call; `priced` is False when no price is known for the model.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: Literal["stop", "tool_calls", "length", "content_filter", "other"] = "stop"
    usage: Usage = Usage()
    model: str = ""
    provider: str = ""
    response_id: str | None = None
    raw: Json = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    priced: bool = True


class ModelProfile(Frozen):
    """What the runtime must know before it calls: who serves it, whether it costs, the worst price.

    `free` calls need no durable intent before they are made. `max_micros` is the price of a call with the
    request's tokens estimated and `max_tokens` produced: the amount that is reserved. None: unknown price.
    `endpoint` is the address that answers; None for a model of this process.
    """

    provider: str
    name: str
    free: bool
    max_micros: int | None = 0
    input_tokens: int = 0
    endpoint: str | None = None


OnDelta = Callable[[str], None]
"""Receives pieces of text as they arrive; must not block."""


class ModelPort(Protocol):
    """A model endpoint. Implementations never retry; they raise TransientModelError or PermanentModelError.

    `profile` is pure and cheap and raises UnknownName for a model it cannot serve. `complete` returns within
    `request.timeout` or raises; a cancelled call leaves nothing running.
    """

    def profile(self, request: ModelRequest) -> ModelProfile: ...

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply: ...

    async def close(self) -> None: ...
