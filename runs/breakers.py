"""Circuit breakers: what has failed too often of late is left alone for a while, then tried by one.

The port, and the policy as data. A breaker is named by what it protects, `capability:NAME` or `model:ENDPOINT`,
and is shared by every host of the store. Knows no store.

    closed ──failures in a row──▶ open ──cooldown──▶ half_open (one probe) ──ok──▶ closed
                                   ▲                     └──failed: a longer cooldown──┐
                                   └───────────────────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen

State = Literal["closed", "open", "half_open"]
_SECOND = 1_000_000_000


class BreakerPolicy(Frozen):
    """Opens after `failures` in a row, for `cooldown` seconds, twice as long each time up to `longest`; a probe that
    says nothing for `probe` seconds is given up."""

    failures: int = Field(default=5, ge=1)
    cooldown: float = Field(default=10.0, gt=0)
    longest: float = Field(default=600.0, gt=0)
    probe: float = Field(default=120.0, gt=0)

    def pause(self, openings: int) -> int:
        """How long it stays open the n-th time in a row (from 1), in ns."""
        return int(min(self.longest, self.cooldown * 2 ** min(openings - 1, 32)) * _SECOND)

    @property
    def probe_ns(self) -> int:
        """How long one probe may take, in ns."""
        return int(self.probe * _SECOND)


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker that is not closed and well. `until`: when it lets a probe through, or gives the probe up (Unix ns)."""

    name: str
    state: State
    failures: int
    since: int
    until: int
    openings: int
    reason: str


class Breakers(Protocol):
    """The port. Healthy breakers cost a look of some microseconds; only failures write."""

    async def admit(self, name: str, at: int) -> int | None:
        """None: go on, perhaps as the one probe. Else when to ask again (Unix ns)."""
        ...

    async def failed(self, name: str, reason: str, at: int) -> Breaker:
        """A transient failure; returns the breaker as it is now."""
        ...

    async def succeeded(self, name: str) -> bool:
        """The other side answered; True when that closed a breaker which was not closed and well."""
        ...

    async def listed(self) -> list[Breaker]:
        """All that are not closed and well, by name."""
        ...
