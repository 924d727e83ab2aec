"""The sandbox of an agent: the six tools that its model is given, and what a call of a sandbox's capability does.

Owns the names. Knows neither how the tools are described to a model nor how anything is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from retinue.runs.errors import ConfigError, InvalidInput
from retinue.runs.sandboxes import ManifestInfo

Operation = Literal["open", "exec", "read", "write", "edit", "list", "snapshot", "adopt", "close"]

OPERATIONS: dict[str, Operation] = {
    "sandbox.open": "open",
    "sandbox.exec": "exec",
    "sandbox.read": "read",
    "sandbox.write": "write",
    "sandbox.edit": "edit",
    "sandbox.list": "list",
    "sandbox.snapshot": "snapshot",
    "sandbox.adopt": "adopt",
    "sandbox.close": "close",
    "shell": "exec",
    "python": "exec",
    "read_file": "read",
    "write_file": "write",
    "edit_file": "edit",
    "list_files": "list",
}
"""By the name of the capability."""

CHANGING = frozenset[Operation]({"exec", "write", "edit", "adopt"})
"""Those that make the next generation."""

AGENT = "agent"
"""The name of the sandbox that an agent's tools share."""


def check_sandboxes(wanted: Mapping[str, str], manifest: Callable[[str], ManifestInfo]) -> None:
    """Raise ConfigError when the sandbox of an agent (by its name, the manifest) cannot be had."""
    for agent, name in wanted.items():
        try:
            manifest(name)
        except InvalidInput as error:
            raise ConfigError(f"agent {agent!r}: sandbox={name!r}: {error}") from error
