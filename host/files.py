"""The files of a job: local ones and those of a place that all machines reach, opened and told apart alike.

Owns which files an input names and how a changed one is known. Knows neither formats nor runs.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from retinue.runs.errors import InvalidInput
from retinue.runs.sources import Source
from retinue.store.folders import digest_of_ends
from retinue.store.objects import AHEAD, Found, is_url, split_url
from retinue.store.places import open_objects

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
MOST_SHARDS = 10_000
_ASKED = 64 * 1024
_MARKS = frozenset("*?[")


def source_of(path: Path | str, id_field: str = "id", limit: int | None = None) -> Source:
    """A source for one file, fingerprinted as it is now. InvalidInput when it cannot be read or has no known ending."""
    name = path if isinstance(path, str) and is_url(path) else str(Path(path).resolve())
    kind = _format(name, str(path))
    return Source(path=name, format=kind, id_field=id_field, limit=limit, fingerprint=fingerprint(path))


def shards_of(url: str, id_field: str = "id") -> tuple[Source, ...]:
    """The sources of all files that a URL names, in the order of their names; of a local path, the one.

    A URL that ends in a slash names all files below it, one with `*`, `?` or `[...]` those that fit. Files and folders
    whose names begin with `_` or `.` are passed over. InvalidInput: no such file, too many, or an unknown ending.
    """
    if not names_many(url):
        return (source_of(url, id_field),)
    place, path = split_url(url)
    root = place if place.endswith("/") else place + "/"
    found = sorted(_matches(place, path), key=lambda one: one.path)
    if not found:
        raise InvalidInput(f"input {url}: there is no such file; check the place and the pattern")
    if len(found) > MOST_SHARDS:
        raise InvalidInput(f"input {url}: {len(found):,} files, at most {MOST_SHARDS:,}: name fewer, larger ones")
    if not any(one.size for one in found):
        raise InvalidInput(f"input {url} is empty: it needs at least one row")
    return tuple(
        Source(path=name, format=_format(name, name), id_field=id_field, fingerprint=_print(one))
        for one in found
        if (name := root + one.path)
    )


def names_many(path: str) -> bool:
    """Whether a URL names more than one file."""
    return is_url(path) and (path.endswith("/") or not _MARKS.isdisjoint(path))


def is_remote(path: str) -> bool:
    """Whether a file is read over the network."""
    return path.startswith("s3://")


def fingerprint(path: Path | str) -> str:
    """What changes when the file does: its size, and a hash of its ends or the tag its place gives it. InvalidInput."""
    if isinstance(path, str) and is_url(path):
        place, inner = split_url(path)
        found = open_objects(place).head(inner)
        if found is None:
            raise InvalidInput(f"input {path} cannot be read: there is no such file; check the path")
        return _print(found)
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return f"{size}-{digest_of_ends(file, size)}"
    except OSError as error:
        raise InvalidInput(
            f"input {path} cannot be read: {error.strerror}; check the path and its permissions"
        ) from None


def open_file(source: Source) -> BinaryIO:
    """The file of a source, to be read from anywhere; over a network by ranges: lines a few MiB at a time, Parquet,
    whose reader knows what it needs, about as it asks."""
    if not is_url(source.path):
        return Path(source.path).open("rb")
    place, path = split_url(source.path)
    size, _, tag = (source.fingerprint or fingerprint(source.path)).partition("-")
    return open_objects(place).open(Found(path, int(size), tag), _ASKED if source.format == "parquet" else AHEAD)


def _matches(place: str, path: str) -> list[Found]:
    fixed = path[: min([path.index(mark) for mark in _MARKS if mark in path], default=len(path))]
    folder = fixed.rpartition("/")[0]
    wanted = path.split("/")
    hidden = folder.count("/") + 1 if folder else 0
    return [
        found
        for found in open_objects(place).list(folder)
        if not any(part.startswith(("_", ".")) for part in found.path.split("/")[hidden:])
        and (path.endswith("/") or path == "" or _fits(found.path.split("/"), wanted))
    ]


def _fits(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _format(name: str, shown: str) -> str:
    ending = Path(name).suffix
    if ending.lower() not in FORMATS:
        raise InvalidInput(f"input {shown}: unknown ending {ending!r}; use one of {', '.join(FORMATS)}")
    return FORMATS[ending.lower()]


def _print(found: Found) -> str:
    return f"{found.size}-{found.tag}"
