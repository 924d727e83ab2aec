"""What arrives for a run from outside: ended children, answers, events, a cancel.

An owner learns of arrivals by a counter that the store keeps; a run parks only when it has seen them all.
Knows no store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from retinue.runs.contracts import NOTHING, Json, Usage


@dataclass(frozen=True, slots=True)
class Group:
    """Children that one step of a parent waits for; the children's rows are the join state.

    The parent has news when `pending <= low`, or when `need` successes are reached or out of reach.
    `cursor` is where the input goes on and `exhausted` says that no child will be added. `total` counts
    the children created; `rejected` the inputs that could not become one.
    """

    key: str
    total: int = 0
    pending: int = 0
    ok: int = 0
    failed: int = 0
    rejected: int = 0
    low: int = 0
    need: int | None = None
    cursor: Json = None
    exhausted: bool = False
    reserved: Usage = NOTHING
    used: Usage = NOTHING

    @property
    def waiting(self) -> int:
        """Children that have not ended."""
        return self.pending

    @property
    def decided(self) -> bool:
        """True when enough is known: all ended, or `need` is reached or out of reach."""
        if self.exhausted and self.pending == 0:
            return True
        if self.need is None:
            return False
        return self.ok >= self.need or (self.exhausted and self.ok + self.pending < self.need)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said to a request: approved, denied or answered, by whom, with what value; or that nobody did."""

    request_id: str
    status: Literal["approved", "denied", "answered", "expired"]
    by: str
    at: int
    value: Json = None


@dataclass(frozen=True, slots=True)
class Event:
    """A signal sent to a run. `number` orders the signals of one run."""

    number: int
    name: str
    at: int
    value: Json = None


@dataclass(frozen=True, slots=True)
class News:
    """What has arrived for a run: the counter to park with, its groups, resolved requests, events, cancel, hold."""

    seq: int
    groups: dict[str, Group] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    cancel: str | None = None
    held: bool = False
