"""Connections for reads and for small writes of their own. Knows no operation.

A server that went away and came back is not noticed by who uses one, unless it takes longer than the store's patience.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from retinue.store.postgres.connection import Patient
from retinue.store.postgres.opening import configure, parameters
from retinue.store.postgres.pen import translate

T = TypeVar("T")
_PAUSE = 0.05


class Pool:
    """A few connections that threads share. Close it when done."""

    def __init__(self, url: str, most: int, patience: float) -> None:
        self._patience = patience
        self._pool = ConnectionPool(
            connection_class=Patient,
            kwargs=lambda: parameters(url, patience),
            min_size=1,
            max_size=most,
            open=True,
            timeout=min(patience, 1.0),
            reconnect_timeout=1.0,  # it waits longer after each failure, and would still do so when the server is back
            name="retinue",
            configure=lambda connection: configure(connection, patience),
        )

    def use(self, work: Callable[[Patient], T]) -> T:
        """What the work came to; it is done again when the connection ends, so doing it twice must be the same.

        Blocking. StoreBusy, StoreError.
        """
        until = time.monotonic() + self._patience
        while True:
            try:
                with self._pool.connection() as connection:
                    return work(connection)
            except psycopg.errors.QueryCanceled as error:
                raise translate(error) from None
            except (psycopg.OperationalError, PoolTimeout) as error:
                if time.monotonic() > until:
                    raise translate(error) from None
                time.sleep(_PAUSE)
            except psycopg.Error as error:
                raise translate(error) from None

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()
