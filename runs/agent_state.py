"""The state of an agent's run: the truth from which it resumes, not a transcript to be parsed.

Frozen data; a turn makes the next one. Knows no loop.
"""

from __future__ import annotations

import re

from pydantic_core import to_json

from retinue.runs.contracts import Frozen, Json
from retinue.runs.messages import Message, ToolCall
from retinue.runs.packets import Observation

_QUESTION_FIELDS = ("question", "goal", "task", "query", "text")


class AgentState(Frozen):
    """Goal, what was said and seen, how often the model was corrected. `messages` are stored once each."""

    goal: str
    turn: int = 0
    corrections: int = 0
    messages: tuple[Message, ...] = ()
    observed: tuple[Observation, ...] = ()

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What was seen, without the data: that is in the messages."""
        return self.observed

    def next_id(self) -> str:
        """The id of the next observation."""
        return f"o{len(self.observed) + 1}"

    def said(self, *messages: Message) -> AgentState:
        """The state with more messages."""
        return self.model_copy(update={"messages": (*self.messages, *messages)})

    def called(self, calls: tuple[ToolCall, ...]) -> AgentState:
        """The state with the assistant's message that made these calls."""
        return self.said(Message(role="assistant", tool_calls=calls))

    def evidence(self) -> tuple[str, ...]:
        """The texts that tools and people gave, as the model saw them, JSON escapes resolved."""
        return tuple(_plain(message.content) for message in self.messages if message.role == "tool")


def goal_of(input: Json) -> str:
    """What a run is about, in words: its question, or its input as it is."""
    if isinstance(input, str):
        return input
    if isinstance(input, dict):
        for name in _QUESTION_FIELDS:
            if isinstance(input.get(name), str):
                return str(input[name])
    return to_json(input).decode()


def spec_of(name: str) -> str:
    """An agent's name as a schema name that endpoints accept."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64]


def _plain(content: str) -> str:
    return content.replace('\\"', '"').replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
