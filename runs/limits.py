"""Limits of what may run at once and how fast it may start, by tenant and by queue. Pure data.

Shares order tenants, priorities order one tenant's runs: a free place goes to the tenant that has the fewest runs
in progress for its weight, and there to the run of the highest priority.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from retinue.runs.contracts import Frozen

_PER = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def per_second(value: Any) -> Any:
    """Starts per second, from a number or from text such as `30/m`. ValueError names the forms."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([smhd])\s*", value)
    if found is None:
        raise ValueError("a rate is a number per second, or text such as '10/s', '30/m', '500/h', '1000/d'")
    return float(found[1]) / _PER[found[2]]


class Limit(Frozen):
    """`concurrency`: runs in progress at once; `rate`: starts per second, with bursts of one second's worth
    and of one start at least; `weight`: the tenant's share beside others (queues have none)."""

    concurrency: int | None = Field(default=None, ge=0)
    rate: Annotated[float | None, BeforeValidator(per_second)] = Field(default=None, gt=0)
    weight: float = Field(default=1.0, gt=0, le=1_000)

    @property
    def burst(self) -> float:
        """How many starts may be saved up."""
        return max(self.rate or 0.0, 1.0)


UNLIMITED = Limit()


class Limits(Frozen):
    """By name of a tenant and of a queue; `*` is for every name that is not listed."""

    tenants: dict[str, Limit] = {}
    queues: dict[str, Limit] = {}

    def of_tenant(self, name: str) -> Limit:
        """The tenant's limit."""
        return self.tenants.get(name) or self.tenants.get("*", UNLIMITED)

    def of_queue(self, name: str) -> Limit:
        """The queue's limit; runs of no queue have none."""
        return (self.queues.get(name) or self.queues.get("*", UNLIMITED)) if name else UNLIMITED


NO_QUOTAS = Limits()
