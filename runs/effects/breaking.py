"""What effects do about circuit breakers: wait while one is open, tell it how a call went.

A wait for a breaker is no try: it costs no attempt, and the run holds nothing.
"""

from __future__ import annotations

from retinue.runs.capabilities import REFUSED
from retinue.runs.contracts import StopReason
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, TransientError
from retinue.runs.journal import Record
from retinue.runs.steps import Wait

_SPREAD_NS = 1_000_000_000
_NO_FAULT = REFUSED | {"rate_limited", "interrupted"}
"""Codes that say nothing about whether the other side is well."""


async def blocked(run: Run, name: str) -> Wait | None:
    """The wait for an open breaker, a little spread out; None when the call may be made."""
    until = await run.services.breakers.admit(name, run.services.now_ns())
    if until is None:
        return None
    return Wait(StopReason.retry_later, at=until + int(run.services.random.random() * _SPREAD_NS))


async def report(run: Run, name: str, error: EffectError | None = None) -> None:
    """Tell a breaker how a call went; that it opened or closed is put on record."""
    breakers = run.services.breakers
    if error is not None and error.code in _NO_FAULT:
        return
    if not isinstance(error, TransientError):
        if await breakers.succeeded(name):
            _note(run, name, {"state": "closed"})
        return
    breaker = await breakers.failed(name, str(error)[:200], run.services.now_ns())
    if breaker.state == "open":
        _note(run, name, {"state": "open", "until": breaker.until, "failures": breaker.failures})


def _note(run: Run, name: str, facts: dict[str, object]) -> None:
    run.note(Record(at=run.services.now_ns(), topic="breaker", by="runtime", facts={"name": name, **facts}))
