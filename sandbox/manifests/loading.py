"""The manifests of a project, by name: read from their files, checked, and digested with all that they take in.

Owns where manifests are and how their mistakes are told. A file that changed is read anew. Knows no workspace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from retinue.runs.contracts import Json
from retinue.runs.errors import ConfigError, PermanentError, UnknownName
from retinue.runs.references import missing_in, resolved
from retinue.runs.sandboxes import ManifestInfo
from retinue.runs.yaml_lines import KeyPath, YamlFile, read_yaml
from retinue.sandbox.extending import Changes
from retinue.sandbox.manifests import pins
from retinue.sandbox.manifests.manifest import (
    NAME,
    ArchiveSource,
    Checkout,
    DirectorySource,
    FileSource,
    Manifest,
    Packages,
    info_of,
    sources_of,
    version_of,
)
from retinue.sandbox.manifests.requirements import LARGEST, check_requirements
from retinue.sandbox.manifests.sources import Sources
from retinue.sandbox.profiles import Profile

ENDINGS = (".yaml", ".yml")
_NEVER_SHOWN = {"environment", "text"}
_SHAPES = {
    "dict_type": "must hold `name: value` lines, indented below it",
    "model_type": "must hold keys of its own, indented on the lines below it",
    "string_type": "must be text: put it in quotes",
    "tuple_type": "must be a list, such as [one, two]",
}
_PARTS: dict[str, type[BaseModel]] = {
    "files": FileSource,
    "directories": DirectorySource,
    "archives": ArchiveSource,
    "checkouts": Checkout,
    "packages": Packages,
    "limits": Changes,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest with all that is known of it. `profile` is what its programs run under, limits and mounts included.
    By place, `contents` has the digests of what it takes in, and `facts` all that a pin is about; `changed` tells what
    is not as it was pinned."""

    manifest: Manifest
    profile: Profile
    info: ManifestInfo
    contents: Mapping[str, str]
    facts: Mapping[str, Json]
    pinned: pins.PinnedManifest | None = None
    changed: tuple[pins.Change, ...] = ()


class Manifests:
    """All manifests of one folder, each read when it is asked for first, and again when its file or the lock changes.

    What a manifest takes in may be large: that is looked at again when a workspace is made, and by `refreshed`. Blocks
    meanwhile; safe for many threads. UnknownName with close matches for a name that has no file; ConfigError for a
    manifest that cannot be used, or that is not as it was pinned.
    """

    def __init__(self, folder: Path, profiles: Mapping[str, Profile], sources: Sources) -> None:
        self.folder = folder
        self.profiles = dict(profiles)
        self.sources = sources
        self._known: dict[str, tuple[object, Loaded]] = {}

    def names(self) -> list[str]:
        """All names, sorted; those of files that cannot be used too."""
        if not self.folder.is_dir():
            return []
        return sorted({path.stem for path in self.folder.iterdir() if path.suffix in ENDINGS and path.is_file()})

    def info(self, name: str) -> ManifestInfo:
        """What is known of it; `reviewed_by` is who pinned this version."""
        return self.loaded(name).info

    def loaded(self, name: str) -> Loaded:
        """A manifest that may be used, as it was when its file or the lock changed last."""
        known = self._known.get(name)
        return self.refreshed(name) if known is None or known[0] != self._state(name) else known[1]

    def refreshed(self, name: str) -> Loaded:
        """A manifest that may be used, as it is now with all that it takes in."""
        self._known.pop(name, None)
        state = self._state(name)
        found = self.examined(self.path(name))
        if found.changed:
            raise ConfigError(
                f"sandbox manifest {name!r} is not as {found.pinned.by if found.pinned else 'nobody'} pinned it: "
                f"{pins.changes_text(found.changed)}; look at it (`retinue sandbox check {name}`), then run "
                f"`retinue sandbox pin {name}`"
            )
        self._known[name] = (state, found)
        return found

    def _state(self, name: str) -> object:
        """What changes when the manifest's file or the lock does."""
        return [_status(path) for path in (self.path(name), self.sources.project / pins.FILE)]

    def path(self, name: str) -> Path:
        """The file of a manifest. UnknownName."""
        for ending in ENDINGS:
            path = self.folder / f"{name}{ending}"
            if NAME.fullmatch(name) and path.is_file():
                return path
        known = self.names()
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
        raise UnknownName(f"there is no sandbox manifest {name!r} in {self.folder}: {hint}")

    def examined(self, path: Path) -> Loaded:
        """A manifest as its file has it, pinned or not. ConfigError."""
        read = read_yaml(path)
        declared = _parsed(read, path.stem)
        if declared.profile not in self.profiles:
            raise ConfigError(_unknown_profile(read, declared.profile, self.profiles))
        try:
            under = declared.effective(self.profiles[declared.profile])
        except ValueError as error:
            raise ConfigError(f"{_where(read, ('limits',))}: limits.{error}") from None
        contents = {}
        for place, source in sources_of(declared).items():
            try:
                contents[place] = self.sources.digest(*source)
            except ConfigError as error:
                raise ConfigError(f"{_where(read, tuple(place.split('.', 1)))}: {place}: {error}") from None
        self._check_packages(read, declared)
        self._check_archives(read, declared)
        manifest = declared.model_copy(update={"mounts": self._mounts(read, declared)})
        version = version_of(declared, contents)
        pinned = pins.read_lock(self.sources.project).manifests.get(declared.name)
        facts = pins.facts_of(declared, under, contents)
        changed = () if pinned is None else pins.changes(pinned, facts)
        same = pinned is not None and not changed
        info = info_of(declared, under, version, pinned.by if pinned is not None and same else "")
        # The digest is of what was declared: the same on every node, wherever the project lies there.
        shown = manifest.effective(self.profiles[declared.profile])
        return Loaded(manifest, shown, info, contents, facts, pinned, changed)

    def _mounts(self, read: YamlFile, declared: Manifest) -> dict[str, str]:
        """The folders of the host that programs see, absolute, by variable."""
        found = {}
        for variable, folder in declared.mounts.items():
            try:
                found[variable] = self.sources.mount(folder)
            except ConfigError as error:
                place = f"mounts.{variable}: {folder!r}"
                raise ConfigError(f"{_where(read, ('mounts', variable))}: {place}: {error}") from None
        return found

    def _check_archives(self, read: YamlFile, declared: Manifest) -> None:
        for path, archive in declared.archives.items():
            found = None if archive.sha256 is None else self.sources.sha256(archive.source)
            if found != archive.sha256:
                raise ConfigError(
                    f"{_where(read, ('archives', path, 'sha256'))}: archives.{path}.sha256: {archive.source!r} has "
                    f"{found}: it is another file; put the right one there, or correct the hash"
                )

    def _check_packages(self, read: YamlFile, declared: Manifest) -> None:
        packages = declared.packages
        if packages is None:
            return
        where = _where(read, ("packages",))
        if packages.wheels is None and self.profiles[declared.profile].network != "listed":
            raise ConfigError(
                f"{where}: packages: without `wheels` pip needs hosts, and profile {declared.profile!r} lists none: "
                "give a folder of wheels, or name a profile that extends `build`"
            )
        with self.sources.opened(packages.requirements) as file:
            text = os.pread(file, LARGEST, 0)
        try:
            check_requirements(text.decode(), packages)
        except ValueError as error:
            raise ConfigError(f"{where}: packages.requirements: {packages.requirements}: {error}") from None


def _status(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load_manifests(
    folder: Path, profiles: Mapping[str, Profile], project: Path | None = None, private: tuple[Path, ...] = ()
) -> Manifests:
    """The manifests of a folder. What they take in lies in `project` (None: the folder above) and not in `private`."""
    return Manifests(folder, profiles, Sources(project or folder.parent, private))


def environment_of(
    manifest: Manifest, environ: Mapping[str, str], own: Mapping[str, str], inside: str = "/workspace"
) -> dict[str, str]:
    """All variables of an exec: those of the manifest with the values of secrets, of its mounts and packages, and an
    exec's `own` above them. `inside` is where programs see the workspace.

    PermanentError (`not_made`) names a variable that the host does not have; its value is in no message.
    """
    for name in missing_in(manifest.environment.values(), environ):
        raise PermanentError(
            f"sandbox manifest {manifest.name!r} refers to ${{{name}}}, which the environment of this process does not "
            f"have: set {name} where the runtime is started",
            code="not_made",
        )
    found = {name: resolved(text, environ) for name, text in manifest.environment.items()}
    found |= manifest.mounts
    if manifest.packages is not None:
        found["PYTHONPATH"] = ":".join(
            path for path in (f"{inside}/{manifest.packages.into}", found.get("PYTHONPATH", "")) if path
        )
    return found | dict(own)


def secrets_of(manifest: Manifest, environ: Mapping[str, str]) -> dict[str, str]:
    """By name, values that must never be in a snapshot or a record, as far as the host has them."""
    return {name: value for name in manifest.secrets if (value := environ.get(name))}


# -- telling mistakes --------------------------------------------------------------------------------------


def _parsed(read: YamlFile, stem: str) -> Manifest:
    if not NAME.fullmatch(stem):
        raise ConfigError(
            f"{read.path}: {stem!r} is no name of a manifest: a small letter, then small letters, digits, - and _; "
            "rename the file"
        )
    if read.values.get("name", stem) != stem:
        raise ConfigError(f"{_where(read, ('name',))}: the file's name says {stem!r}: leave `name` out, or rename it")
    try:
        return Manifest.model_validate(read.values | {"name": stem})
    except ValidationError as error:
        faults = sorted(error.errors(), key=lambda item: read.line(_place(item["loc"])) or 0)[:10]
        raise ConfigError("\n".join(_tell(read, item) for item in faults)) from None


def _where(read: YamlFile, place: KeyPath) -> str:
    line = read.line(place)
    return f"{read.path} line {line}" if line else str(read.path)


def _place(loc: tuple[str | int, ...]) -> KeyPath:
    return tuple(part for part in loc if part != "[key]")


def _tell(read: YamlFile, item: Any) -> str:
    place = _place(item["loc"])
    name = ".".join(map(str, place))
    if item["type"] == "extra_forbidden":
        return f"{_where(read, place)}: there is no key {name!r}; {_suggest(place)}"
    said = str(item["msg"]).removeprefix("Value error, ")
    if not place:
        return f"{_where(read, tuple(said.partition(':')[0].split('.', 1)))}: {said}"
    if item["type"] == "missing":
        return f"{_where(read, place)}: key {name!r} is missing; add it"
    said = _SHAPES.get(item["type"], said)
    hidden = not _NEVER_SHOWN.isdisjoint(map(str, place))
    got = "a value that is not shown" if hidden else json.dumps(item["input"], default=str, ensure_ascii=False)[:100]
    return f"{_where(read, place)}: key {name!r}: {said} (got {got}); correct or remove it"


def _suggest(place: KeyPath) -> str:
    part = _PARTS.get(str(place[0])) if len(place) > 1 else Manifest
    fields = {} if part is None else part.model_fields
    known = [str(field.alias or name) for name, field in fields.items()]
    near = get_close_matches(str(place[-1]), known, n=2, cutoff=0.6)
    return (
        f"did you mean {' or '.join(near)}?" if near else f"the keys here are {', '.join(known)}; correct or remove it"
    )


def _unknown_profile(read: YamlFile, name: str, profiles: Mapping[str, Profile]) -> str:
    near = get_close_matches(name, profiles, n=2) or list(profiles)
    return (
        f"{_where(read, ('profile',))}: there is no profile {name!r}: did you mean {' or '.join(near)}? Profiles of "
        "the project stand in retinue.yaml, under `sandbox.profiles`"
    )
