"""From a folder of rule files to a gate in force.

Owns reading the files. A gate is only ever made from rules that all parse: one bad rule refuses the start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from retinue.policy.gate import CedarGate
from retinue.policy.invariants import Invariants
from retinue.policy.rules import DEFAULTS, read_rules
from retinue.runs.errors import ConfigError

SUFFIX = ".cedar"


def load_gate(
    folder: Path | None,
    *,
    kill_switch: Path | bool = False,
    tenants: frozenset[str] | None = None,
    roles: Mapping[str, Collection[str]] | None = None,
) -> CedarGate:
    """The gate over every `*.cedar` file of a folder, in the order of their names.

    Without a folder the shipped defaults are in force. `kill_switch` is True or a file whose existence denies
    everything; `tenants` admits these only; `roles` says who has which (role to names). Raises ConfigError naming
    file, line, rule and remedy.
    """
    return make_gate(read_texts(folder), Invariants(kill_switch=kill_switch, tenants=tenants), roles)


def make_gate(
    files: Mapping[str, str], invariants: Invariants, roles: Mapping[str, Collection[str]] | None = None
) -> CedarGate:
    """The gate over rule files (name to text). Raises ConfigError as `load_gate`."""
    return CedarGate(read_rules(files, (roles or {}).keys()), invariants, roles)


def read_texts(folder: Path | None) -> dict[str, str]:
    """The rule files of a folder by name, in that order, or the shipped defaults. Raises ConfigError."""
    if folder is None:
        return {DEFAULTS.name: DEFAULTS.read_text(encoding="utf-8")}
    if not folder.is_dir():
        raise ConfigError(f"policy folder {str(folder)!r} does not exist. Create it or remove the setting.")
    files = {str(path): _read(path) for path in sorted(folder.iterdir()) if path.suffix == SUFFIX}
    if not files:
        raise ConfigError(
            f"policy folder {str(folder)!r} holds no {SUFFIX} file, so everything would be denied. "
            "Begin with a copy of the shipped defaults, or remove the setting."
        )
    return files


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}. Correct or remove it.") from error
