"""Opening the store of a project: all that a command needs that only looks at runs or speaks to them.

Knows no models, no tools, no policy and no traces: importing them costs most of a second.
"""

from __future__ import annotations

from retinue.host.settings import Settings
from retinue.runs.errors import StoreError
from retinue.store.sqlite import SqliteStore
from retinue.store.store import Store


def open_store(settings: Settings) -> Store:
    """The store of the project's data folder, made when there is none. StoreError when the folder cannot be used."""
    try:
        return SqliteStore(
            settings.data_folder, limits=settings.limits, breakers=settings.breakers, blobs=settings.blobs
        )
    except OSError as error:
        remedy = "free space, change its owner, or name another in `data:`"
        raise StoreError(f"data folder {settings.data_folder} cannot be used: {error.strerror}; {remedy}") from None
