"""Opening the store of a project: all that a command needs that only looks at runs or speaks to them.

Knows no models, no tools, no policy and no traces: importing them costs most of a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from retinue.host.clock import now_ns
from retinue.host.settings import Settings
from retinue.runs.errors import ConfigError, StoreError
from retinue.store.liveness import Owner, boot_id, is_alive
from retinue.store.sqlite import SqliteStore
from retinue.store.store import Store

if TYPE_CHECKING:
    from retinue.store.postgres.looking import Server
    from retinue.store.postgres.serving import Serving

_PATIENCE = 10.0
"""Seconds that a shared store is waited for; never longer than a lease, or a wait for it would cost the lease."""


def open_store(settings: Settings) -> Store:
    """The project's store: the database that `store:` names, else a file in the data folder, made when there is none.

    ConfigError, or StoreError when the place cannot be used.
    """
    if settings.store is not None:
        return _open_postgres(settings, settings.store)
    try:
        return SqliteStore(
            settings.data_folder, limits=settings.limits, breakers=settings.breakers, blobs=settings.blobs
        )
    except OSError as error:
        remedy = "free space, change its owner, or name another in `data:`"
        raise StoreError(f"data folder {settings.data_folder} cannot be used: {error.strerror}; {remedy}") from None


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The project's store while the block lasts. ConfigError, StoreError."""
    store = open_store(settings)
    try:
        yield store
    finally:
        await store.close()


def identity_of(settings: Settings) -> str:
    """Which store the project has, without who asks: what a runtime is bound to. ConfigError."""
    if settings.store is None:
        return str(settings.data_folder)
    try:
        from retinue.store.postgres.opening import identity
    except ImportError as error:
        raise _not_installed(settings.store, error) from None
    return identity(settings.store)


def serving_hosts(settings: Settings) -> list[Serving]:
    """The living hosts of a shared store, on any node; none for a store of one machine. ConfigError, StoreError.

    One of this machine whose process is gone does not live, though it has not been silent for long.
    """
    if settings.store is None:
        return []
    try:
        from retinue.store.postgres.serving import hosts_of
    except ImportError as error:
        raise _not_installed(settings.store, error) from None
    found = hosts_of(settings.store, settings.actors.lease_seconds)
    return [host for host in found if host.boot_id != boot_id() or is_alive(Owner(host.pid, host.started))]


def look_at_server(settings: Settings) -> Server | None:
    """What can be told of the server of a shared store, which is not changed; None for a store of one machine.

    ConfigError, StoreError; no password is in either.
    """
    if settings.store is None:
        return None
    try:
        from retinue.store.postgres.looking import look
    except ImportError as error:
        raise _not_installed(settings.store, error) from None
    return look(settings.store, lambda: now_ns() / 1e9)


def _not_installed(url: str, error: ImportError) -> ConfigError:
    return ConfigError(f"`store: {url}` needs {error.name}: install `retinue[postgres]`")


def _open_postgres(settings: Settings, url: str) -> Store:
    try:
        from retinue.store.postgres.store import PostgresStore
    except ImportError as error:
        raise _not_installed(url, error) from None
    return PostgresStore(
        url,
        key=settings.store_key,
        patience=min(_PATIENCE, settings.actors.lease_seconds),
        limits=settings.limits,
        breakers=settings.breakers,
        blobs=settings.blobs,
    )
