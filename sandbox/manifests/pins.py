"""The lock file of manifests: which version of each somebody has looked at, who and when, and what differs from it now.

A manifest that is not in it may be used and counts as not reviewed; one that is may be used only as it was pinned.
Knows neither how a manifest is read nor a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal

from retinue.runs.contracts import Frozen, Json
from retinue.runs.lock_files import read_lock_file, write_lock_file
from retinue.sandbox.manifests.manifest import Manifest
from retinue.sandbox.profiles import Profile

FILE = "sandbox.lock"
"""Beside retinue.yaml, and under version with it."""

_SHOWN = 4
_LONGEST_TEXT = 400
_LONGEST = 80


class PinnedManifest(Frozen):
    """What was approved of a manifest: `by` whom, `at` what time (UTC), its version and revision, and every fact of it
    by its place: what it says, what its profile grants, the digests of what it takes in. Long texts are digests."""

    by: str
    at: str
    version: str
    revision: int
    facts: dict[str, Json]


class Lock(Frozen):
    """The whole file."""

    version: Literal[1] = 1
    manifests: dict[str, PinnedManifest] = {}


class Change(Frozen):
    """A fact that is not what was pinned, with both sides; None: absent."""

    place: str
    before: Json = None
    after: Json = None


def facts_of(manifest: Manifest, profile: Profile, contents: Mapping[str, str]) -> dict[str, Json]:
    """Everything that counts of a manifest as declared, flat: by place what it says, and the digests of contents."""
    said = manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name"})
    granted = profile.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    facts = dict(_leaves(said, "")) | {f"profile.{place}": value for place, value in _leaves(granted, "")}
    return dict(sorted((facts | {f"{place} (content)": digest for place, digest in contents.items()}).items()))


def changes(pinned: PinnedManifest, facts: Mapping[str, Json]) -> tuple[Change, ...]:
    """What is not as it was pinned, by place."""
    return tuple(
        Change(place=place, before=pinned.facts.get(place), after=facts.get(place))
        for place in sorted(pinned.facts.keys() | facts.keys())
        if pinned.facts.get(place) != facts.get(place)
    )


def changes_text(found: tuple[Change, ...]) -> str:
    """The changes as one line; the first of them, the others counted."""
    said = [f"{one.place}: {_side(one.before)} -> {_side(one.after)}" for one in found[:_SHOWN]]
    return "; ".join([*said, *([f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])


def _side(value: Json) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _leaves(value: Json, place: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
        yield place, f"sha256:{sha256(value.encode(errors='surrogatepass')).hexdigest()}"
    else:
        yield place, value


# -- the file ----------------------------------------------------------------------------------------------


def read_lock(folder: Path) -> Lock:
    """The lock of a project's folder; an empty one where there is none. ConfigError when it is no lock."""
    return read_lock_file(folder / FILE, Lock)


def write_lock(folder: Path, name: str, pinned: PinnedManifest | None) -> None:
    """Put one manifest's pin into a folder's lock, or take it out; the file is replaced as a whole. ConfigError."""
    others = {other: one for other, one in read_lock(folder).manifests.items() if other != name}
    kept = others if pinned is None else {**others, name: pinned}
    write_lock_file(folder / FILE, Lock(manifests=kept))
