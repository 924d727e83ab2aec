"""What a run needs from the rooms around it, bundled: the composition root fills it, nobody else builds it.

Knows protocols only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from retinue.runs.breakers import Breakers
from retinue.runs.capabilities import Gateway
from retinue.runs.contracts import Budget
from retinue.runs.doors import Endpoint
from retinue.runs.gate import Gate
from retinue.runs.memories import Memories
from retinue.runs.messages import ModelPort
from retinue.runs.ownership import Journal
from retinue.runs.packets import ContextBuilder
from retinue.runs.patience import ENDLESS, Patience
from retinue.runs.registry import Registry
from retinue.runs.rollouts import AsDeclared, Rollouts
from retinue.runs.sandboxes import Sandboxes
from retinue.runs.sessions import EVERYTHING, SessionPolicy
from retinue.runs.sources import PartWriter, SourceReader


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """One owner of retries: exponential backoff with full jitter, in seconds, within bounds.

    A wait above `in_memory` seconds is a durable timer: the run parks.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 60.0
    in_memory: float = 5.0

    def delay(self, attempt: int, random: Random, retry_after: float | None) -> float:
        """Seconds before attempt number `attempt` + 1; the other side's wish is honoured, up to an hour."""
        if retry_after is not None:
            return min(retry_after, 3600.0)
        return random.uniform(0, min(self.cap, self.base * 2 ** (attempt - 1)))


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a definition is silent. `strict` makes every step durable before the run goes on;
    `cancel_grace` is how long (s) an effect may take to stop before it is left behind, `approval_lasts` how long (s)
    a yes counts after it was said.
    """

    model: str = "builtin:extractive"
    budget: Budget = field(default_factory=lambda: Budget(steps=32, hops=64, depth=8, width=100_000))
    model_timeout: float = 120.0
    context_tokens: int = 24_000
    strict: bool = False
    precheck: bool = True
    follow_ups: bool = True
    inline_branches: int = 32
    spawn_chunk: int = 1_000
    patience: Patience = ENDLESS
    sessions: SessionPolicy = EVERYTHING
    cancel_grace: float = 10.0
    approval_lasts: float | None = 86_400.0


DeltaSink = Callable[[str, str, int, str], None]
"""Receives (run id, step key, attempt, text) as a model streams; an empty text ends an attempt. Must not block."""


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators of every execution in a host."""

    journal: Journal
    models: ModelPort
    gateway: Gateway
    gate: Gate
    contexts: ContextBuilder
    registry: Registry
    sources: SourceReader
    breakers: Breakers
    now_ns: Callable[[], int]
    deltas: DeltaSink
    random: Random
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    defaults: Defaults = field(default_factory=Defaults)
    endpoint: Endpoint | None = None
    """Where adopted functions reach models; a host without one adopts nothing."""
    memories: Memories | None = None
    """Where memories are kept; a host without it remembers nothing."""
    rollouts: Rollouts = field(default_factory=AsDeclared)
    sandboxes: Sandboxes | None = None
    """Where runs have their sandboxes; a host without it has none."""
    parts: PartWriter | None = None
    """Writes the rows of shards; a host without one writes none."""
