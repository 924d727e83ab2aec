"""Profiles of a project: each extends a shipped one or another of the project's, and says what is otherwise.

Pure. Owns what a profile may change of the one it extends: it may add hosts and paths and set limits; what holds a
sandbox in, it can only make stricter. Knows no settings file and no backend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from retinue.runs.contracts import Frozen
from retinue.runs.patience import Span
from retinue.sandbox.egress.hosts import parse_listed
from retinue.sandbox.profiles import MIB, SHIPPED, Limits, Network, Profile

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?([KMGT])?(i?)B?")
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_OPENNESS: dict[Network, int] = {"none": 0, "listed": 1, "host": 2}


def size_of(text: object) -> object:
    """Bytes of a size such as `512MiB`, `1.5GB` or a number. ValueError for other text; what is no text stays."""
    if not isinstance(text, str):
        return text
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("must be a size such as 512MiB or 2GB")
    unit = 1024 if found[3] else 1000
    return int(float(found[1]) * unit ** _POWERS.get(found[2] or "", 0))


Size = Annotated[int, BeforeValidator(size_of)]
"""Bytes: a number, or text such as `512MiB`."""


class Changes(Frozen):
    """Limits that are to be otherwise, as `Limits` has them; what is not given stays, null means not limited."""

    seconds: Span | None = Field(default=None, gt=0)
    cpu_seconds: int | None = Field(default=None, gt=0)
    memory: Size | None = Field(default=None, ge=16 * MIB)
    processes: int | None = Field(default=None, gt=0)
    open_files: int | None = Field(default=None, gt=15)
    file_bytes: Size | None = Field(default=None, gt=0)
    disk: Size | None = Field(default=None, gt=0)
    files: int | None = Field(default=None, gt=0)

    @field_validator("seconds")
    @classmethod
    def _bounded(cls, seconds: float | None) -> float | None:
        if seconds is None:
            raise ValueError("an exec always has a bound of time: give seconds, or leave it out")
        return seconds

    @model_serializer(mode="wrap")
    def _only_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was not said stays unsaid where these settings are read again: null would say `not limited`."""
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}

    @property
    def given(self) -> dict[str, Any]:
        """What was said, by name."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

    def over(self, limits: Limits) -> Limits:
        """Those limits with what is given here."""
        return limits.model_copy(update=self.given)


class Extension(Frozen):
    """A profile as a project declares it. `hosts` and `reads` are added to those of the profile it extends."""

    extends: str
    confined: bool | None = None
    own_root: bool | None = None
    network: Network | None = None
    hosts: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    limits: Changes = Changes()

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            parse_listed(host)
        return hosts

    @field_validator("reads")
    @classmethod
    def _absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise ValueError(f"{path!r} is no absolute path without `..`, such as /usr/share/dict")
        return paths


def profiles_of(extensions: Mapping[str, Extension]) -> dict[str, Profile]:
    """The shipped profiles and a project's own, by name. ValueError names the profile, what is wrong and the remedy."""
    found = dict(SHIPPED)
    for name in extensions:
        if name in SHIPPED:
            raise ValueError(f"{name}: this profile is shipped and means the same everywhere: choose another name")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a profile: a small letter, then small letters, digits, - and _")
    for name in extensions:
        _resolve(name, extensions, found, ())
    return found


def narrowed(profile: Profile, changes: Changes) -> Profile:
    """The profile with tighter limits. ValueError for one that would be wider than the profile's."""
    for name, value in changes.given.items():
        most = getattr(profile.limits, name)
        if most is not None and (value is None or value > most):
            wanted = "no limit" if value is None else f"{value:,}"
            raise ValueError(
                f"{name}: {wanted} is more than the {most:,} of profile {profile.name!r}: ask for less, or name a "
                "profile that allows it"
            )
    return profile.model_copy(update={"limits": changes.over(profile.limits)})


def _resolve(
    name: str, extensions: Mapping[str, Extension], found: dict[str, Profile], above: tuple[str, ...]
) -> Profile:
    if name in found:
        return found[name]
    if name in above:
        raise ValueError(f"{name}: profiles extend each other in a circle: {' -> '.join((*above, name))}")
    extension = extensions[name]
    if extension.extends not in extensions and extension.extends not in SHIPPED:
        known = [*SHIPPED, *extensions]
        near = get_close_matches(extension.extends, known, n=2) or known
        raise ValueError(
            f"{name}.extends: there is no profile {extension.extends!r}: did you mean {' or '.join(near)}?"
        )
    found[name] = _extended(name, _resolve(extension.extends, extensions, found, (*above, name)), extension)
    return found[name]


def _extended(name: str, parent: Profile, extension: Extension) -> Profile:
    network = extension.network or parent.network
    if extension.confined is False and parent.confined:
        raise ValueError(
            f"{name}.confined: {parent.name!r} is confined, and what extends it is too: extend `unconfined` to run "
            "without confinement, which every record will say"
        )
    if extension.confined and not parent.confined:
        raise ValueError(f"{name}.confined: {parent.name!r} is not confined: extend `strict` or `build`")
    if _OPENNESS[network] > _OPENNESS[parent.network]:
        remedy = "build" if network == "listed" else "unconfined"
        raise ValueError(
            f"{name}.network: {network} is more than the {parent.network} of {parent.name!r}: extend {remedy}"
        )
    if extension.hosts and network != "listed":
        raise ValueError(f"{name}.hosts: they hold for network `listed`, and this one has {network}: extend `build`")
    values = parent.model_dump() | {
        "name": name,
        "network": network,
        "own_root": parent.own_root if extension.own_root is None else extension.own_root,
        "hosts": tuple(dict.fromkeys((*parent.hosts, *extension.hosts))) if network == "listed" else (),
        "reads": tuple(dict.fromkeys((*parent.reads, *extension.reads))),
        "limits": extension.limits.over(parent.limits),
    }
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg']}") from None
