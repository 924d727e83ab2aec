"""The settings of a project: `retinue.yaml`, then `RETINUE_...` of the environment, then the defaults here.

Owns where the file is looked for and how mistakes are told; the keys are in `host.keys`. A `Settings` is plain
data: it goes to actors as JSON. Knows nothing of what the settings build.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from retinue.host.keys import POLICY, Keys
from retinue.runs.errors import ConfigError
from retinue.runs.yaml_lines import KeyPath, YamlFile, read_yaml
from retinue.sessions.servers import Servers

FILE = "retinue.yaml"
PREFIX = "RETINUE_"
DEBUG = "RETINUE_DEBUG"
"""Not a setting: shows tracebacks on the command line."""


class Settings(Keys):
    """All settings of one project. `folder` is the absolute project folder, `file` what was read, if any.

    Plain data: `Settings.model_validate_json(settings.model_dump_json())` is equal, in any process.
    """

    folder: Path
    file: Path | None = None

    @property
    def data_folder(self) -> Path:
        """Where store, blobs and traces live, absolute."""
        return self.folder / self.data.expanduser()

    @property
    def policy_folder(self) -> Path | None:
        """Where the rules are, absolute. None, for the shipped defaults, when there is no folder `policy`;
        a folder of another name has to be there, and loading it tells when it is not."""
        folder = self.folder / self.policy.folder.expanduser()
        return None if self.policy.folder == POLICY and not folder.is_dir() else folder

    @property
    def servers(self) -> Servers:
        """The servers of `capabilities:`; a command starts in the project's folder, or where `cwd` says from there."""
        return {
            name: server
            if server.command is None
            else server.model_copy(update={"cwd": str(self.folder / (server.cwd or "."))})
            for name, server in self.capabilities.items()
        }

    @property
    def sandbox_folder(self) -> Path:
        """Where manifests of sandboxes are, absolute; it need not be there."""
        return self.folder / self.sandbox.folder.expanduser()

    @property
    def kill_switch(self) -> Path | None:
        """The file whose existence denies everything, absolute."""
        return None if self.policy.kill_switch is None else self.folder / self.policy.kill_switch.expanduser()


class _Layers(Keys, BaseSettings):
    """The file as given values, the environment over them."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", validate_default=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def find_project(start: Path) -> Path | None:
    """The `retinue.yaml` of a folder or of the nearest folder above it; None when there is none."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def load_settings(project: Path | None = None) -> Settings:
    """The settings of a project: a folder, its `retinue.yaml`, or None for the current folder or one above.

    Works without a file. Raises ConfigError naming file, line, key and remedy (or the environment variable).
    """
    file, folder = _locate(project)
    read = read_yaml(file) if file is not None else YamlFile(folder / FILE)
    _refuse_unknown_variables(os.environ)
    try:
        layers = _Layers(**read.values)
    except ValidationError as error:
        raise ConfigError("\n".join(_tell(read, item) for item in _in_order(read, error))) from None
    except SettingsError as error:
        raise ConfigError(_tell_unreadable(error)) from None
    values = layers.model_dump(exclude_unset=True)
    return Settings(folder=folder, file=file, **values)


def _locate(project: Path | None) -> tuple[Path | None, Path]:
    if project is None:
        file = find_project(Path.cwd())
        return file, file.parent if file is not None else Path.cwd()
    project = project.expanduser().resolve()
    if project.is_file():
        return project, project.parent
    if not project.is_dir():
        raise ConfigError(f"project {project} does not exist: name a folder or its {FILE} (`retinue init` makes one)")
    return (project / FILE if (project / FILE).is_file() else None), project


# -- telling mistakes ------------------------------------------------------------------------------------

_SHAPES = {
    "tuple_type": "must be a list, such as [one, two]",
    "model_type": "must hold keys of its own, indented on the lines below it",
    "dict_type": "must hold `name: value` lines, indented below it",
    "missing": "a value is missing",
}
_NEVER_SHOWN = {"archive", "blobs", "snapshots", "store", "store_key"}
"""Keys whose refused values may hold a secret."""
_OF_SERVERS = {"auth", "command", "env", "headers", "url"}
"""The same among the keys of `capabilities.NAME`."""
_PLACE = "must be s3://bucket/prefix or file:///shared/folder, without a key in it (AWS_... of the environment)"
_PATTERNS: dict[str | int, str] = {
    "archive": _PLACE,
    "blobs": _PLACE,
    "snapshots": _PLACE,
    "store": "must be postgresql://user@host:5432/database; without it the store is a file in the data folder",
    "otlp": "must be an address such as http://localhost:4318",
    "webhook": "must be an address such as https://hooks.example.com/services/T1",
    "memory_limit": "must be a size such as 512MB or 1GB",
    "snapshot_limit": "must be a size such as 500MB or 20GiB",
    "backend": "must be auto, or the name of a backend such as bubblewrap",
    "uids": "must be a range of users that nobody else has, such as 600000-665535",
}


def _in_order(read: YamlFile, error: ValidationError) -> list[Any]:
    """The faults, in the order of their lines; those of the environment come first."""
    return sorted(error.errors(), key=lambda item: read.line(_place(item["loc"])) or 0)[:10]


def _place(loc: tuple[str | int, ...]) -> KeyPath:
    """The place of a fault without pydantic's marks for the key of a mapping."""
    return tuple(part for part in loc if part != "[key]")


def _tell(read: YamlFile, item: Any) -> str:
    place = _place(item["loc"])
    name = ".".join(map(str, place))
    variable = _variable(place)
    if variable is not None:
        where = f"environment variable {variable}"
    else:
        line = read.line(place)
        where = f"{read.path} line {line}" if line else str(read.path)
    if item["type"] == "extra_forbidden":
        return f"{where}: there is no key {name!r}; {_suggest(place)}"
    got = json.dumps(item["input"], default=str, ensure_ascii=False)
    said = _SHAPES.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "string_pattern_mismatch":
        said = _PATTERNS[place[-1]]
    if _may_hold_a_secret(place):
        got = "a value that is not shown"
    return f"{where}: key {name!r}: {said} (got {got[:100]}); correct it or remove it for the default"


def _may_hold_a_secret(place: KeyPath) -> bool:
    of_server = place[0] == "capabilities" and (len(place) < 3 or place[2] in _OF_SERVERS)
    return of_server or place[0] in _NEVER_SHOWN or place[-1] in _NEVER_SHOWN


def _variable(place: KeyPath) -> str | None:
    """The environment variable that gave the value of a place; variables win over the file."""
    parts = [str(part).upper() for part in place]
    for length in range(len(parts), 0, -1):
        name = PREFIX + "__".join(parts[:length])
        for variable in os.environ:
            if variable.upper() == name:
                return variable
    return None


def _suggest(place: KeyPath) -> str:
    """Close matches among the keys of that level, or all of them."""
    known = [".".join(map(str, (*place[:-1], key))) for key in _keys_at(Keys, place[:-1])]
    name = ".".join(map(str, place))
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    near += [each for each in _all_keys(Keys) if each.split(".")[-1] == place[-1] and each not in near]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"the keys here are {', '.join(known)}; correct or remove it"


def _keys_at(model: type[BaseModel], place: KeyPath) -> list[str]:
    """The keys that there are at a place; none where names are free, as those of tenants."""
    parts = list(place)
    while parts:
        inner, free = _model_of(model, str(parts.pop(0)))
        if inner is None or (free and not parts):
            return []
        if free:
            parts.pop(0)
        model = inner
    return list(model.model_fields)


def _model_of(model: type[BaseModel], key: str) -> tuple[type[BaseModel] | None, bool]:
    """The model behind a key, and whether names stand between them: `limits.tenants.NAME.rate`."""
    found = model.model_fields.get(key)
    annotation = found.annotation if found else None
    free = get_origin(annotation) is dict
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None), free


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key in model.model_fields:
        inner, free = _model_of(model, key)
        yield f"{prefix}{key}"
        if inner is not None and not free:
            yield from _all_keys(inner, f"{prefix}{key}.")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelt variable would be ignored in silence otherwise."""
    known = {PREFIX + key.upper().replace(".", "__"): key for key in _all_keys(Keys)}
    free = (
        "MODELS__PRICES",
        "MODELS__KEYS",
        "LIMITS__TENANTS",
        "LIMITS__QUEUES",
        "ACTORS__POOLS",
        "CAPABILITIES",
        "SANDBOX__PROFILES",
    )
    open_ended = tuple(f"{PREFIX}{part}__" for part in free)
    for variable in sorted(environ):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known or name == DEBUG or name.startswith(open_ended):
            continue
        near = get_close_matches(name, known, n=2, cutoff=0.7)
        hint = f"did you mean {' or '.join(near)}?" if near else "docs/configuration.md lists them"
        raise ConfigError(f"environment variable {variable} sets no key of {FILE}: {hint} Correct or unset it")


def _tell_unreadable(error: SettingsError) -> str:
    field = re.search(r'"([a-z_]+)"', str(error))
    name = PREFIX + field[1].upper() if field else f"{PREFIX}..."
    cause = f": {error.__cause__}" if error.__cause__ is not None else ""
    return (
        f"environment variable {name} is not JSON{cause}; lists and mappings are given as JSON, such as '[\"agents\"]'"
    )
