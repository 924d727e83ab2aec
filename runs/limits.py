"""Limits of what may run at once, how fast it may start and what a tenant may spend. Pure data.

Shares order tenants, priorities order one tenant's runs: a free place goes to the tenant that has the fewest runs
in progress for its weight, and there to the run of the highest priority.
"""

from __future__ import annotations

import re
from decimal import ROUND_DOWN, Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from retinue.runs.contracts import MICROS, Frozen

Per = Literal["day", "month", "total"]
"""The window of a money limit, by UTC."""
_SHARES = 10
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
    and of one start at least; `weight`: the tenant's share beside others (queues have none).

    `usd`: what all runs of the tenant may spend in a window of `per` (UTC); `usd_per_run`: what is reserved for a run
    that names no money limit of its own, a tenth of `usd` when it is not said.
    """

    concurrency: int | None = Field(default=None, ge=0)
    rate: Annotated[float | None, BeforeValidator(per_second)] = Field(default=None, gt=0)
    weight: float = Field(default=1.0, gt=0, le=1_000)
    usd: Decimal | None = Field(default=None, ge=0, decimal_places=6, le=1_000_000_000)
    per: Per = "day"
    usd_per_run: Decimal | None = Field(default=None, gt=0, decimal_places=6)

    @field_validator("usd", "usd_per_run", mode="before")
    @classmethod
    def _no_binary_money(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.usd is None and (self.usd_per_run is not None or "per" in self.model_fields_set):
            raise ValueError("`per` and `usd_per_run` say more of a money limit: give `usd` too, or leave them out")
        if self.usd is not None and self.usd_per_run is not None and self.usd_per_run > self.usd:
            raise ValueError(f"usd_per_run {self.usd_per_run} is more than usd {self.usd}: no such run could begin")
        return self

    @property
    def micros(self) -> int | None:
        """The money limit in micro-dollars."""
        return None if self.usd is None else int(self.usd * MICROS)

    @property
    def share(self) -> Decimal | None:
        """The money limit (USD) of a run that names none; None where the tenant has no limit."""
        if self.usd is None or self.usd_per_run is not None:
            return self.usd_per_run
        return (self.usd / _SHARES).quantize(Decimal(1) / MICROS, rounding=ROUND_DOWN)

    @property
    def burst(self) -> float:
        """How many starts may be saved up."""
        return max(self.rate or 0.0, 1.0)


UNLIMITED = Limit()


class Limits(Frozen):
    """By name of a tenant and of a queue; `*` is for every name that is not listed."""

    tenants: dict[str, Limit] = {}
    queues: dict[str, Limit] = {}

    @field_validator("queues")
    @classmethod
    def _no_money(cls, queues: dict[str, Limit]) -> dict[str, Limit]:
        for name, limit in queues.items():
            if limit.usd is not None:
                raise ValueError(f"{name}.usd: money is limited by tenant, not by queue: write it under `tenants`")
        return queues

    def of_tenant(self, name: str) -> Limit:
        """The tenant's limit."""
        return self.tenants.get(name) or self.tenants.get("*", UNLIMITED)

    def of_queue(self, name: str) -> Limit:
        """The queue's limit; runs of no queue have none."""
        return (self.queues.get(name) or self.queues.get("*", UNLIMITED)) if name else UNLIMITED


NO_QUOTAS = Limits()
