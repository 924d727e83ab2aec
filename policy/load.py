"""From a folder of rule files to a gate in force.

Owns reading the files. A gate is only ever made from rules that all parse: one bad rule refuses the start.
"""

from __future__ import annotations

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
) -> CedarGate:
    """The gate over every `*.cedar` file of a folder, in the order of their names.

    Without a folder the shipped defaults are in force. `kill_switch` is True or a file whose existence denies
    everything; `tenants` admits these only. Raises ConfigError naming file, line, rule and remedy.
    """
    files = {DEFAULTS.name: DEFAULTS.read_text(encoding="utf-8")} if folder is None else _read_files(folder)
    return CedarGate(read_rules(files), Invariants(kill_switch=kill_switch, tenants=tenants))


def _read_files(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise ConfigError(f"policy folder {str(folder)!r} does not exist. Create it or remove the setting.")
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix != SUFFIX:
            continue
        try:
            files[str(path)] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = f"cannot be read as UTF-8 text: {error}"
            raise ConfigError(f"{path}: {problem}. Correct or remove it.") from error
    if not files:
        raise ConfigError(
            f"policy folder {str(folder)!r} holds no {SUFFIX} file, so everything would be denied. "
            "Begin with a copy of the shipped defaults, or remove the setting."
        )
    return files
