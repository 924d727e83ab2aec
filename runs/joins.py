"""Join policies: when a fan-out has heard enough. Pure data."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal

from retinue.runs.contracts import Frozen
from retinue.runs.errors import InvalidInput

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Join(Frozen):
    """`need` successes are enough (None: all must end); after `deadline` seconds what there is must do."""

    policy: Literal["all", "first_success", "quorum", "best_effort"] = "all"
    need: int | None = None
    deadline: float | None = None


def all_of() -> Join:
    """Wait until every child has ended."""
    return Join()


def first_success() -> Join:
    """Go on with the first child that completes; the others are canceled."""
    return Join(policy="first_success", need=1)


def quorum(count: int) -> Join:
    """Go on when `count` children have completed, or cannot any more."""
    if count < 1:
        raise InvalidInput(f"quorum({count}): at least 1")
    return Join(policy="quorum", need=count)


def best_effort(deadline: float | str | timedelta) -> Join:
    """Wait for all, but at most that long: seconds or text such as `5m`."""
    return Join(policy="best_effort", deadline=seconds(deadline))


def canceler(run_id: str) -> str:
    """Who canceled the children that the join of a run did not wait for, as their records say it."""
    return f"the join of {run_id}"


def seconds(duration: float | str | timedelta) -> float:
    """A duration in seconds. InvalidInput names what forms there are."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", duration.strip())
        if match is None:
            raise InvalidInput(f"duration {duration!r}: give seconds, or text such as '90s', '5m', '2h', '1d'")
        return float(match[1]) * _UNITS[match[2]]
    if duration < 0:
        raise InvalidInput(f"duration {duration!r}: it cannot be negative")
    return float(duration)
