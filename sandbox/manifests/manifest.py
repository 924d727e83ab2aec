"""Manifests: what a new workspace holds, with which rights and limits, as a project declares and versions it.

Plain data with its own checks. Opens no file: what a manifest takes in is read by `sources`, and made by
`materializing`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from retinue.runs.contracts import Frozen
from retinue.runs.errors import InvalidInput
from retinue.runs.references import VARIABLE, names_in, refuse_secret
from retinue.runs.sandboxes import ManifestInfo
from retinue.sandbox.extending import Changes, narrowed
from retinue.sandbox.profiles import Profile
from retinue.sandbox.snapshots.rules import Rules

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
MOST_PARTS = 1_000
LARGEST_TEXT = 1024 * 1024
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_PATH = 1_024


class FileSource(Frozen):
    """A file: its `text`, or a file of the project that it is a copy of (`from`)."""

    text: str | None = Field(default=None, max_length=LARGEST_TEXT)
    source: str | None = Field(default=None, alias="from")
    executable: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.source is None):
            raise ValueError("give exactly one of `text` and `from`")
        return self


class DirectorySource(Frozen):
    """A directory: empty, or a copy of one of the project (`from`) without what fits a pattern of `exclude`."""

    source: str | None = Field(default=None, alias="from")
    exclude: tuple[str, ...] = ()

    @field_validator("exclude")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_patterns(patterns)


class ArchiveSource(Frozen):
    """What a tar or zip file of the project holds, without the first `strip` names of each path. `sha256`: of it."""

    source: str = Field(alias="from")
    strip: int = Field(default=0, ge=0, le=16)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Checkout(Frozen):
    """The files of one commit of a git repository: a folder, or an https address. Submodules stay empty."""

    source: str = Field(alias="from", min_length=1)
    commit: str
    keep_git: bool = False

    @property
    def remote(self) -> bool:
        """Whether it is fetched over the network."""
        return "://" in self.source

    @field_validator("commit")
    @classmethod
    def _whole(cls, commit: str) -> str:
        if not _COMMIT.fullmatch(commit):
            raise ValueError("must be a whole commit id, 40 or 64 hex digits: a branch or a tag may be moved")
        return commit

    @field_validator("source")
    @classmethod
    def _a_place(cls, source: str) -> str:
        if "://" not in source:
            if source.startswith("-") or "\0" in source or re.match(r"[^/]+:", source):
                raise ValueError("must be a folder with a git repository, or an https address")
            return source
        parts = urlsplit(source)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("must be https://host/path, or a folder with a git repository")
        if "@" in parts.netloc:
            raise ValueError("holds a user or a password, which a manifest must not: fetch it to a folder first")
        return source


class Packages(Frozen):
    """Python packages that are installed into the directory `into` of the workspace, by a program in the sandbox: from
    wheels of a folder of the project, or without one through the hosts of the profile. Each one has its hashes."""

    requirements: str
    wheels: str | None = None
    into: str = ".packages"
    hashes: bool = True


class Manifest(Frozen):
    """What a workspace is made from. Keys of `files`, `directories`, `archives` and `checkouts` are paths in it.

    `environment` may refer to variables of the host (`${NAME}`): secrets by reference. `mounts` names folders of the
    host that programs see, read only, where the variable of that name says. `limits` only lowers those of the profile.
    `exclude` has patterns of what snapshots leave out. `replayable` says whether an exec may be repeated after a
    crash where it does not say so itself; None: where there is no network.
    """

    name: str = ""
    revision: int = Field(default=1, ge=1)
    description: str = Field(default="", max_length=10_000)
    profile: str = "strict"
    files: dict[str, FileSource] = Field(default={}, max_length=MOST_PARTS)
    directories: dict[str, DirectorySource] = Field(default={}, max_length=MOST_PARTS)
    archives: dict[str, ArchiveSource] = Field(default={}, max_length=MOST_PARTS)
    checkouts: dict[str, Checkout] = Field(default={}, max_length=MOST_PARTS)
    packages: Packages | None = None
    environment: dict[str, str] = Field(default={}, max_length=MOST_PARTS)
    mounts: dict[str, str] = Field(default={}, max_length=100)
    limits: Changes = Changes()
    exclude: tuple[str, ...] = ()
    replayable: bool | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Variables of the host that it refers to."""
        return tuple(names_in(self.environment.values()))

    def effective(self, profile: Profile) -> Profile:
        """The profile with its limits and mounts. ValueError for a limit that is wider than the profile's."""
        tight = narrowed(profile, self.limits)
        return tight.model_copy(update={"reads": tuple(dict.fromkeys((*tight.reads, *self.mounts.values())))})

    @field_validator("files", "directories", "archives", mode="before")
    @classmethod
    def _short(cls, given: Any, info: Any) -> Any:
        """`path: text` for a file, `path: folder` for a copy, `path:` for an empty directory."""
        if not isinstance(given, dict):
            return given
        key = "text" if info.field_name == "files" else "from"
        empty = info.field_name == "directories"
        return {
            path: {key: value} if isinstance(value, str) else {} if value is None and empty else value
            for path, value in given.items()
        }

    @field_validator("files", "directories", "archives", "checkouts")
    @classmethod
    def _inside(cls, given: dict[str, Any], info: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, value in given.items():
            inner = inner_path(path, may_be_all=info.field_name != "files")
            if inner in found:
                raise ValueError(f"{path!r} stands for {inner!r}, which is here already")
            found[inner] = value
        return found

    @field_validator("environment")
    @classmethod
    def _plain(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not VARIABLE.fullmatch(name) or "\0" in value:
                raise ValueError(f"{name!r} is no name of an environment variable, or its value holds NUL")
            refuse_secret(f"environment.{name}", name, value)
        return environment

    @field_validator("mounts")
    @classmethod
    def _variables(cls, mounts: dict[str, str]) -> dict[str, str]:
        for name, folder in mounts.items():
            if not VARIABLE.fullmatch(name) or not folder or "\0" in folder:
                raise ValueError(f"{name!r}: give NAME: folder; programs find the folder by the variable NAME")
        return mounts

    @field_validator("exclude")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_patterns(patterns)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        """What is made must not stand in each other's way, as far as the names tell."""
        taken = dict.fromkeys(self.files, "files")
        for key, paths in (
            ("directories", self.directories),
            ("archives", self.archives),
            ("checkouts", self.checkouts),
        ):
            for path in paths:
                _refuse_below(path, self.files, key)
                if path in taken and path != ".":
                    raise ValueError(f"{key}.{path}: {taken[path]}.{path} is at the same place: choose another")
                taken[path] = key
        for path in self.files:
            _refuse_below(path, {other: one for other, one in self.files.items() if other != path}, "files")
        if self.packages is not None:
            into = inner_path(self.packages.into, may_be_all=False)
            if any(path == into or path.startswith(into + "/") for path in taken):
                raise ValueError(f"packages.into: {into!r} is made by another key too: choose another directory")
        both = sorted(self.environment.keys() & self.mounts.keys())
        if both:
            raise ValueError(f"environment.{both[0]}: a mount has this name: choose another for one of them")
        return self


def _refuse_below(path: str, files: Mapping[str, object], key: str) -> None:
    for file in files:
        if path.startswith(file + "/"):
            raise ValueError(f"{key}.{path}: {file!r} above it is a file: choose another path")


def _checked_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not pattern.strip("/") or "\0" in pattern:
            raise ValueError(f"{pattern!r} is no pattern: write *.pyc, build/ or data/**/raw")
    try:
        Rules(omit=patterns).omits("x", False)
    except InvalidInput as error:
        raise ValueError(str(error).removeprefix("omit: ")) from None
    return patterns


def inner_path(path: str, may_be_all: bool) -> str:
    """A path in a workspace in its plain form; `.` for all of it. ValueError for one that leads out or cannot be."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names or "\0" in path or "\\" in path:
        raise ValueError(f"{path!r} leads out of the workspace or cannot be: write a relative path without `..`")
    if len(path) > _LONGEST_PATH or any(len(name.encode(errors="replace")) > 255 for name in names):
        raise ValueError(f"{path[:80]!r}… is too long for a path")
    if not names and not may_be_all:
        raise ValueError(f"{path!r} names the workspace itself: name something in it")
    return "/".join(names) or "."


def version_of(manifest: Manifest, contents: Mapping[str, str]) -> str:
    """Digest of all that a manifest says, and of what it takes in: by place (`files.a.txt`) the digest of that.

    What is left at its default is not in it: a later Retinue with more keys gives the same.
    """
    said = manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = json.dumps([said, dict(sorted(contents.items()))], sort_keys=True, separators=(",", ":"))
    return "m1-" + sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def info_of(manifest: Manifest, profile: Profile, version: str, reviewed_by: str = "") -> ManifestInfo:
    """What is known of a manifest before anything of it is made; `profile` is its effective one."""
    return ManifestInfo(
        name=manifest.name,
        version=version,
        revision=manifest.revision,
        profile=manifest.profile,
        profile_digest=profile.digest,
        reviewed_by=reviewed_by,
        hosts=profile.hosts,
        secrets=manifest.secrets,
        confined=profile.confined,
        network=profile.network,
        replayable=profile.network == "none" if manifest.replayable is None else manifest.replayable,
    )


def sources_of(manifest: Manifest) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """What of the project it takes in: by place the kind (`file` or `directory`), the path, and what is left out."""
    found: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    for path, file in manifest.files.items():
        if file.source is not None:
            found[f"files.{path}"] = ("file", file.source, ())
    for path, directory in manifest.directories.items():
        if directory.source is not None:
            found[f"directories.{path}"] = ("directory", directory.source, directory.exclude)
    found |= {f"archives.{path}": ("file", archive.source, ()) for path, archive in manifest.archives.items()}
    if manifest.packages is not None:
        found["packages.requirements"] = ("file", manifest.packages.requirements, ())
        if manifest.packages.wheels is not None:
            found["packages.wheels"] = ("directory", manifest.packages.wheels, ())
    return found
