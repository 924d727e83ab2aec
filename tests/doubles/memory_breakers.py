"""The breakers of the double: the real ones, over a database of their own in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from retinue.runs.breakers import BreakerPolicy
from retinue.store.breakers import StoreBreakers


def memory_breakers() -> StoreBreakers:
    """Breakers that nobody else sees."""
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE breakers (name TEXT PRIMARY KEY, state TEXT, failures INTEGER, since INTEGER, until INTEGER,"
        " openings INTEGER, reason TEXT)"
    )

    async def submit(operation: Callable[[apsw.Connection], Any]) -> Any:
        return operation(connection)

    return StoreBreakers(submit, submit, BreakerPolicy(), 0.005)
