"""Alerts: what somebody has to be told of, once for each kind and subject while its cause lasts.

The nouns, what the store has to say for the rules to judge (`Look`), and what they decide (`Changes`). Facts name
runs, moments and counts, never content. Knows no store, and no way to tell anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retinue.runs.accounts import Account
from retinue.runs.breakers import Breaker
from retinue.runs.contracts import Frozen, Json
from retinue.runs.rollouts import Rollout

Kind = Literal["wait", "dead_letters", "breaker", "budget", "side_effect_unknown", "traces_lag", "policy", "rollout"]

MOST = 200
"""Alerts of one kind that stand unacknowledged at a time; ends beyond that are counted in one more."""

NAMED = 20
"""Runs that one alert names."""

JOURNAL = "journal"
"""Subject of the alert about an open transaction that keeps readers of the journal back."""

_STATES = frozenset({"request_id", "window"})
"""Facts of what lasts: an open request, an account without room."""

RULES = "rules"
"""Subject of the alert about rules that were changed and cannot be used."""

OTHERS = "others"
"""Subject of the alert that counts what went beyond `MOST`."""


class Alert(Frozen):
    """One that was raised. `to`: the channels that have still to be told; times are Unix ns.

    It stands until `cleared_at`. A lasting one that was acknowledged is no longer told of, and clears when its
    cause is gone.
    """

    id: int
    kind: Kind
    subject: str
    message: str
    facts: dict[str, Json]
    raised_at: int
    to: tuple[str, ...] = ()
    tries: int = 0
    sent_at: int | None = None
    acked_at: int | None = None
    acked_by: str | None = None
    cleared_at: int | None = None

    @property
    def lasting(self) -> bool:
        """True when its cause is a state that can be looked at, not an end that was reached."""
        lasts = self.kind in ("wait", "breaker", "traces_lag", "policy", "rollout")
        return lasts or not self.facts.keys().isdisjoint(_STATES)


@dataclass(frozen=True, slots=True)
class Horizon:
    """The journal's newest committed number, and the one up to which all is there that will ever be.

    Beyond `settled` a transaction is open that may still commit; the server's process `pid` has it, for `holder`.
    """

    newest: int
    settled: int
    pid: int
    holder: str

    @property
    def readable(self) -> int:
        """How far a reader gets now."""
        return min(self.newest, self.settled)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why somebody has to be told, now."""

    kind: Kind
    subject: str
    facts: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Asked:
    """An open request: who asks since when, when it was passed on to whom, and which effect is in doubt."""

    request_id: str
    run_id: str
    root_run_id: str
    tenant_id: str
    kind: str
    since: int
    escalated_at: int | None
    assignee: str | None
    doubt: str | None


@dataclass(frozen=True, slots=True)
class OnEvent:
    """A run that is parked for events, since when and for which steps."""

    run_id: str
    root_run_id: str
    tenant_id: str
    target: str
    since: int
    waits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed. `job_id` is set for a row of a job."""

    run_id: str
    root_run_id: str
    job_id: str | None
    tenant_id: str
    target: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Job:
    """How many rows of a job have failed, and how many inputs were refused, so far."""

    tenant_id: str
    failed: int
    refused: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far ended runs (by commit number) and refused inputs (by their number) were looked at."""

    failed: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What the store says at one moment. `refused`: jobs with inputs that were refused since the last look, and when
    (Unix ns). The last three tell of the causes of what stands: which requests are open, which runs still wait for an
    event, which are still failed. `more`: the next look finds more at once."""

    standing: tuple[Alert, ...]
    asked: tuple[Asked, ...]
    on_event: tuple[OnEvent, ...]
    breakers: tuple[Breaker, ...]
    failures: tuple[Failure, ...]
    refused: dict[str, int]
    jobs: dict[str, Job]
    cursor: Cursor
    more: bool
    open_requests: frozenset[str] = frozenset()
    still_on_event: frozenset[str] = frozenset()
    still_failed: frozenset[str] = frozenset()
    exhausted: tuple[Account, ...] = ()
    stopped: tuple[Rollout, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What a round decided: alerts to clear, causes to tell of over which channels, and how far it has looked."""

    at: int
    cursor: Cursor
    clear: tuple[int, ...] = ()
    causes: tuple[Cause, ...] = ()
    channels: tuple[str, ...] = ()


def joined(known: dict[str, Json], more: dict[str, Json]) -> dict[str, Json]:
    """The facts of a standing alert with those of another cause of its subject: what is counted adds up."""
    runs = [*known.get("runs", ()), *(run for run in more.get("runs", ()) if run not in known.get("runs", ()))]
    counted = {"runs": runs[:NAMED], "count": known.get("count", 0) + more.get("count", 0)}
    return {**known, **more, **counted, "since": min(known["since"], more["since"])}


def came_back(known: dict[str, Json], more: dict[str, Json]) -> bool:
    """Whether a run that the alert names has failed anew: it was retried in between, so this is another alert."""
    return bool(set(known.get("runs", ())) & set(more.get("runs", ())))
