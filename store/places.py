"""Opening a place for files by its name. The client of S3 is imported only where it is asked for."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from retinue.runs.errors import ConfigError
from retinue.store.folders import FolderObjects
from retinue.store.objects import Objects


def open_objects(place: str, patience: float = 10.0) -> Objects:
    """The files of a place as `split_url` names it. `patience` (s) bounds how long one request may be silent.

    ConfigError when `s3://` is asked for and the extra is not installed.
    """
    if not place.startswith("s3://"):
        return FolderObjects(Path(place.removeprefix("file://")))
    return _bucket(place, patience, frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))


@lru_cache(maxsize=64)
def _bucket(place: str, patience: float, _environment: frozenset[tuple[str, str]]) -> Objects:
    """One client for a bucket, its connections shared, as long as the environment says the same."""
    try:
        from retinue.store.s3 import S3Objects  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"{place} needs the S3 client, which is not installed ({error}): install retinue[s3]"
        ) from None
    return S3Objects(place.removeprefix("s3://"), patience)
