"""What a wire protocol must provide to become a model client, and what the protocols share.

Owns the port between `inference.remote` (which talks) and the dialects (which only translate): requests to
payloads, bodies to drafts, events to bodies. Pure: no I/O, no prices, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from retinue.inference.prices import Spent
from retinue.inference.sse import Event
from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentModelError
from retinue.runs.messages import ModelRequest, ToolCall

FinishReason = Literal["stop", "tool_calls", "length", "content_filter", "other"]
INVALID = "invalid_json"
"""The one key under which a call's unreadable arguments are shown to the model that wrote them."""


class NotProtocol(Exception):
    """A body or an event is not what the protocol allows; the text says where."""


class Reported(Exception):
    """The endpoint reported an error inside an accepted reply; `error` is its own object."""

    def __init__(self, error: Json) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Draft:
    """A reply as the wire tells it, before prices and latencies. `spent` is None when it was not reported."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    spent: Spent | None
    model: str | None
    response_id: str | None


class Fold(Protocol):
    """Folds the events of one stream into the body that the same call would have had without streaming."""

    done: bool
    """True once the stream has said its last word."""

    def feed(self, event: Event) -> str:
        """Take an event; the piece of the answer's text in it, or "". Raises NotProtocol or Reported."""
        ...

    def body(self) -> Json | None:
        """The whole body, or None when the stream ended too early."""
        ...


class Dialect(Protocol):
    """One wire protocol. `native` asks for structured output the protocol's own way, else the fallback.

    `payload` is a new dict; `read` and a fold raise NotProtocol or Reported.
    """

    path: str
    stream_fields: Mapping[str, Json]
    """What a payload says to have its reply streamed."""
    markers: tuple[bytes, ...]
    """Words of a refusal that show that the endpoint does not know the native structured output."""

    def headers(self, key: str | None) -> dict[str, str]: ...

    def payload(self, request: ModelRequest, model: str, native: bool) -> dict[str, Json]: ...

    def fold(self, request: ModelRequest, native: bool) -> Fold: ...

    def read(self, body: Json, request: ModelRequest, native: bool) -> Draft: ...


class Wire(BaseModel):
    """Base of what is read from the wire: what we do not know is ignored, what we know must fit."""

    model_config = ConfigDict(frozen=True, extra="ignore")


WireT = TypeVar("WireT", bound=Wire)


def parse_wire(shape: type[WireT], body: Json) -> WireT:
    """`body` as `shape`; NotProtocol names the first place that does not fit."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise NotProtocol(f"{place}: {first['msg']}") from None


def parse_event(shape: type[WireT], event: Event) -> WireT:
    """The data of an event as `shape`. An `error` in it is Reported."""
    data = parse_data(event)
    if data.get("error"):
        raise Reported(data["error"])
    return parse_wire(shape, data)


def parse_data(event: Event) -> dict[str, Json]:
    """The JSON object of an event. Half a character in it, which no journal could keep, is a question mark."""
    try:
        data = json.loads(event.data)
        if not _is_text(data, event.data):
            data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise NotProtocol(f"an event is no JSON object: {event.data[:80]!r}")
    return data


def read_call(call_id: str | None, name: str, raw: str, index: int) -> ToolCall:
    """A tool call; `arguments` is None when `raw` is not one JSON object that can be read in one way only: nothing of
    it is mended, a name that stands twice has no value, and half a character (`\\ud800` alone) is no text. No text at
    all means no arguments."""
    try:
        arguments = _READ_ARGUMENTS(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict) or not _is_text(arguments, raw):
        arguments = None
    return ToolCall(id=call_id or f"call_{index}", name=name, arguments=arguments, raw=raw)


def told_arguments(call: ToolCall) -> dict[str, Json]:
    """The arguments of an earlier call as an object, also when the model wrote something else."""
    return call.arguments if call.arguments is not None else {INVALID: call.raw}


def merge_parameters(
    payload: dict[str, Json], parameters: Mapping[str, Json], reserved: frozenset[str]
) -> dict[str, Json]:
    """The payload with the caller's parameters; those that the runtime sets itself are refused."""
    taken = sorted(set(parameters) & (reserved | set(payload)))
    if taken:
        raise PermanentModelError(
            f"the model parameters name {', '.join(taken)}, which the runtime sets itself; remove them "
            "(max_tokens belongs to the agent, not to its parameters)",
            code="bad_parameters",
        )
    return {**payload, **parameters}


def _is_text(value: Json, written: str) -> bool:
    """Whether all texts of a value can be written in UTF-8; only what was `written` with escapes can hold others."""
    if "\\u" not in written:
        return True
    try:
        return bool(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _refuse_twice(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


_READ_ARGUMENTS = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice).decode
