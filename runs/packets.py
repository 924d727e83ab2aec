"""Context packets: what a model is shown for one decision, item by item, and what was left out and why.

Owns the observations of a run, the packet, and the port that builds it. Knows no model and no store.
"""

from __future__ import annotations

from typing import Literal, Protocol

from retinue.runs.contracts import Frozen, Json
from retinue.runs.messages import Message, ToolSpec


class Observation(Frozen):
    """Something the run has seen. `result` is set for tools: ok, refused, error, or unknown when it may have
    happened though nobody saw it end."""

    id: str
    kind: Literal["model", "tool", "policy", "human", "system"]
    result: Literal["ok", "refused", "error", "unknown"] = "ok"
    name: str = ""
    call_id: str | None = None
    summary: str = ""
    data: Json = None
    turn: int = 0


class ContextItem(Frozen):
    """One candidate for the packet: where it comes from, how old it is, whether it is in and why not.

    `source` is a stable address such as `instructions:prompt/v3` or `observation:o4`; `fresh_at` is Unix ns
    or None for what does not age; `tokens` is an estimate.
    """

    source: str
    kind: Literal["instructions", "goal", "input", "observation", "message", "tool", "evidence", "state", "memory"]
    tokens: int
    included: bool = True
    reason: str = ""
    fresh_at: int | None = None


class StateText(Frozen):
    """A part of the run's state in words: its recap, the artifact it began with, what it owes, or what it recalled.

    `firm` text is shown whole; the rest is cut when there is too much of it. `fresh_at` is as of an item.
    """

    source: str
    text: str
    firm: bool = False
    kind: Literal["state", "memory"] = "state"
    fresh_at: int | None = None


class ContextRequest(Frozen):
    """All that could be shown. `turns` are the conversation so far in order: what the model said and what
    was observed; `state` stands before it; `limit` is the packet's token budget."""

    instructions: str
    instructions_source: str
    goal: str
    input: Json
    state: tuple[StateText, ...] = ()
    turns: tuple[Message, ...] = ()
    observations: tuple[Observation, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    remaining: dict[str, int] = {}
    limit: int = 24_000
    now: int = 0


class ContextPacket(Frozen):
    """What is shown: the messages, the tools, and the account of every item considered.

    `tokens` is what it takes, `wanted` what it would have taken had nothing been cut or left out.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    items: tuple[ContextItem, ...]
    tokens: int
    wanted: int = 0

    @property
    def omitted(self) -> tuple[ContextItem, ...]:
        """Items that were left out, each with its reason."""
        return tuple(item for item in self.items if not item.included)


class ContextBuilder(Protocol):
    """Builds packets. Pure: the same request gives the same packet, also on replay."""

    def build(self, request: ContextRequest) -> ContextPacket:
        """Fit the most useful items into the limit; instructions, goal and input are never left out."""
        ...
