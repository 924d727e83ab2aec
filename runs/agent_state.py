"""The state of an agent's run: the truth from which it resumes, not a transcript to be parsed.

Frozen data; a turn makes the next one. What is stored of it does not grow with the run's history: compaction
folds old messages into a recap, and their texts into pages that are stored once. Knows no loop.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from retinue.runs.artifacts import Artifact, Evaluation, Recap
from retinue.runs.contracts import Frozen, Json
from retinue.runs.messages import Message, ToolCall
from retinue.runs.obligations import Obligations, about, call_digest, declare, open_ones, settle
from retinue.runs.packets import Observation, StateText

_QUESTION_FIELDS = ("question", "goal", "task", "query", "text")
_ARTIFACT = "artifact"
_RECAP = "recap"
_PROBLEMS = 3
_PROBLEM = 240


class AgentState(Frozen):
    """Goal, what was said and seen, what is owed, how often the model was corrected.

    `messages` are stored once each: first `archived` pages (the artifact it began with, the recap, the texts of
    tools and people that are no longer shown), then the conversation. `folded` observations have left `observed`;
    `owed` obligations were ever declared; `compactions` counts since the last reset, `shortened` since the run
    began; `fresh_at` is the turn of the last reset; `recalled` is None until memory was asked. What was `observed` is
    without the data: that is in the messages.
    """

    goal: str
    turn: int = 0
    corrections: int = 0
    messages: tuple[Message, ...] = ()
    recalled: tuple[StateText, ...] | None = None
    observed: tuple[Observation, ...] = ()
    archived: int = 0
    folded: int = 0
    obligations: Obligations = ()
    owed: int = 0
    next_steps: tuple[str, ...] = ()
    reminded: bool = False
    problems: tuple[str, ...] = ()
    confidence: float | None = None
    compactions: int = 0
    shortened: int = 0
    resets: int = 0
    fresh_at: int = 0

    @property
    def conversation(self) -> tuple[Message, ...]:
        """What was said and seen since the last compaction or reset, in order."""
        return self.messages[self.archived :]

    @property
    def pages(self) -> tuple[Message, ...]:
        """What is kept and not shown as a message."""
        return self.messages[: self.archived]

    @property
    def artifact(self) -> Artifact | None:
        """What this agent began with, after a reset or a handoff."""
        found = self._page(_ARTIFACT)
        return None if found is None else _read_artifact(found)

    @property
    def recap(self) -> Recap | None:
        """What stands for the turns that compactions took out of the conversation."""
        found = self._page(_RECAP)
        return None if found is None else _read_recap(found)

    def _page(self, name: str) -> str | None:
        return next((page.content for page in self.pages if page.name == name), None)

    @property
    def evaluation(self) -> Evaluation:
        """How it went so far."""
        return Evaluation(corrections=self.corrections, problems=self.problems, confidence=self.confidence)

    @property
    def left_open(self) -> tuple[str, ...]:
        """The ids of obligations that nothing has settled."""
        return tuple(item.id for item in open_ones(self.obligations))

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As every model, but without what has its default value: a checkpoint holds what there is to say."""
        return super().model_dump(**{"exclude_defaults": True, **options})

    def next_id(self) -> str:
        """The id of the next observation."""
        return f"o{self.folded + len(self.observed) + 1}"

    def said(self, *messages: Message) -> AgentState:
        """The state with more messages."""
        return self.model_copy(update={"messages": (*self.messages, *messages)})

    def called(self, calls: tuple[ToolCall, ...]) -> AgentState:
        """The state with the assistant's message that made these calls."""
        return self.said(Message(role="assistant", tool_calls=calls))

    def saw(self, observation: Observation, content: str) -> AgentState:
        """The state with an observation, and the message that tells the model of it."""
        message = Message(role="tool", content=content, tool_call_id=observation.call_id, name=observation.name)
        bare = observation.model_copy(update={"data": None})
        return self.said(message).model_copy(update={"observed": (*self.observed, bare)})

    def corrected(self, said: str, told: str, problem: str) -> AgentState:
        """The state after a decision or answer was returned to the model with the reason."""
        state = self.said(Message(role="assistant", content=said), Message(role="user", content=told))
        problems = (*self.problems, problem[:_PROBLEM])[-_PROBLEMS:]
        return state.model_copy(update={"corrections": self.corrections + 1, "problems": problems})

    def owing(self, text: str, call: ToolCall | None = None) -> AgentState:
        """The state with one more obligation: the model's own, or about a call that the runtime keeps in mind.

        A call that is owed already is not owed twice.
        """
        digest = None if call is None else call_digest(call.name, call.arguments)
        if digest is not None and about(self.obligations, digest):
            return self
        number = self.owed + 1
        owed = declare(self.obligations, number, text, self.turn, digest)
        return self.model_copy(update={"obligations": owed, "owed": number})

    def settled(self, ids: tuple[str, ...], by: str) -> AgentState:
        """The state with these obligations settled."""
        return self.model_copy(update={"obligations": settle(self.obligations, ids, by)}) if ids else self

    def owed_for(self, call: ToolCall) -> tuple[str, ...]:
        """The ids of open obligations about a call."""
        return about(self.obligations, call_digest(call.name, call.arguments)) if self.obligations else ()

    def evidence(self) -> tuple[str, ...]:
        """The texts that tools and people gave, as the model saw them, JSON escapes resolved; no reset or
        compaction loses one. An agent that was handed the work also has the passages that came with it."""
        artifact = self.artifact
        handed = artifact.recap.evidence if artifact and artifact.recap else ()
        seen = (_plain(message.content) for message in self.messages if message.role == "tool")
        return (*seen, *(item.quote for item in handed))


def first_state(input: Json, artifact: Artifact | None) -> AgentState:
    """The state a run begins with; with an artifact, what its writer owed is owed here."""
    if artifact is None:
        return AgentState(goal=goal_of(input))
    numbers = [int(item.id[1:]) for item in artifact.obligations if item.id[1:].isdigit()]
    return AgentState(
        goal=artifact.goal,
        messages=bind(artifact, None, ()),
        archived=1,
        obligations=artifact.obligations,
        owed=max(numbers, default=0),
        next_steps=artifact.next_steps,
    )


def bind(artifact: Artifact | None, recap: Recap | None, texts: tuple[Message, ...]) -> tuple[Message, ...]:
    """The pages of a state: stored once, however many turns refer to them."""
    pages = [Message(role="system", name=_ARTIFACT, content=artifact.model_dump_json())] if artifact else []
    if recap is not None:
        pages.append(Message(role="system", name=_RECAP, content=recap.model_dump_json()))
    return (*pages, *texts)


@lru_cache(maxsize=64)
def _read_artifact(content: str) -> Artifact:
    return Artifact.model_validate_json(content)


@lru_cache(maxsize=64)
def _read_recap(content: str) -> Recap:
    return Recap.model_validate_json(content)


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
