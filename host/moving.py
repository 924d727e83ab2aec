"""Copies between stores by their addresses, `sqlite:FOLDER` and `postgresql://user@host/database`; and backups of a
shared store, which are copies into a data folder and back.

Knows no command line.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retinue.host.keys import Keys
from retinue.host.settings import Settings
from retinue.runs.errors import ConfigError, InvalidInput
from retinue.store.backup import Beside, copy_notes, drafted, facts_of
from retinue.store.copying import Copied, Source, Target, copy
from retinue.store.sqlite_copying import sqlite_source, sqlite_target

_SQLITE = "sqlite:"


@dataclass(frozen=True, slots=True)
class Address:
    """A store: a data folder, or a server's database with the reference to what wraps its keys."""

    folder: Path | None = None
    url: str = ""
    key: str | None = None


def address_of(text: str, what: str, key: str | None = None) -> Address:
    """What a text names. InvalidInput tells of `what`, and not the text: it may hold a password."""
    if text.startswith(_SQLITE):
        return Address(folder=Path(text.removeprefix(_SQLITE)).expanduser().absolute())
    try:
        Keys(store=text, store_key=key)
    except ValidationError as error:
        [first, *_] = error.errors()
        said = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "string_pattern_mismatch":
            said = "names no store: write sqlite:FOLDER, of a data folder, or postgresql://user@host:5432/database"
        raise InvalidInput(f"{what}{'-key' if first['loc'] == ('store_key',) else ''} {said}") from None
    return Address(url=text, key=key)


def copy_store(source: Address, target: Address, *, keep_running: bool = False) -> Copied:
    """See `store.copying.copy`. Blocking."""
    with _source(source, target.folder) as one, _target(target) as other:
        return copy(one, other, keep_running=keep_running)


def back_up_shared(settings: Settings, target: Path, *, keys: bool, beside: Beside) -> dict[str, Any]:
    """Copy the shared store of a project into a backup `target`, which must not exist; counts as `store.backup` has it.

    Safe while hosts write. InvalidInput, StoreError.
    """
    with drafted(target, settings.data_folder, keys) as (draft, counts):
        with _source(_shared(settings), None) as one, sqlite_target(draft) as other:
            done = copy(one, other, keys=keys)
        rows = {part.name: part.rows for part in done.parts}
        counts |= {"runs": rows["runs"], "frames": rows["journal"], "blobs": rows["blobs"]}
        counts |= beside(draft)
    return counts


def restore_shared(settings: Settings, backup: Path) -> int:
    """Fill the project's shared store, which must be empty, from a backup; returns how many runs are held in it."""
    facts_of(backup)
    with sqlite_source(backup, settings.data_folder) as one, _target(_shared(settings)) as other:
        held = copy(one, other).held
    copy_notes(backup, settings.data_folder)
    return held


def _shared(settings: Settings) -> Address:
    assert settings.store is not None
    return Address(url=settings.store, key=settings.store_key)


def _source(address: Address, scratch: Path | None) -> AbstractContextManager[Source]:
    if address.folder is not None:
        return sqlite_source(address.folder, scratch)
    try:
        from retinue.store.postgres.copying import postgres_source  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _not_installed(error) from None
    return postgres_source(address.url, address.key)


def _target(address: Address) -> AbstractContextManager[Target]:
    if address.folder is not None:
        return sqlite_target(address.folder)
    try:
        from retinue.store.postgres.copying import postgres_target  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _not_installed(error) from None
    return postgres_target(address.url, address.key)


def _not_installed(error: ImportError) -> ConfigError:
    return ConfigError(f"a store at postgresql:// needs {error.name}: install `retinue[postgres]`")
