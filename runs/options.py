"""The values that options of agents take: prompts under version, when a history is shortened, when to start afresh.

Frozen data that checks itself. Knows no definition and no run.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.runs.errors import InvalidInput


@dataclass(frozen=True)
class Prompt:
    """A template under version: `prompts/<name>/<version>.md` beside the module that names it."""

    name: str
    text: str = ""


def prompt(name: str) -> Prompt:
    """Instructions from a file under version, for example `prompt("research/v3")`. InvalidInput for a bad name."""
    if not name or name.startswith(("/", ".")) or ".." in name:
        raise InvalidInput(f"prompt name {name!r}: give a path below prompts/ without its .md, such as 'research/v3'")
    return Prompt(name)


@dataclass(frozen=True)
class Compaction:
    """When an agent's history is shortened: once the packet would take more than the share `at` of the context
    limit; the newest `keep_turns` turns stay as they are. InvalidInput for what cannot be."""

    at: float = 0.8
    keep_turns: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.at <= 1:
            raise InvalidInput(f"Compaction(at={self.at!r}): give a share of the context limit, above 0 and at most 1")
        if self.keep_turns < 1:
            raise InvalidInput(f"Compaction(keep_turns={self.keep_turns!r}): keep at least 1 turn")


@dataclass(frozen=True)
class Reset:
    """When an agent starts afresh from an artifact: after so many turns, after so many compactions, or when the
    model decides so (`by_model`). InvalidInput when none of it is set."""

    turns: int | None = None
    compactions: int | None = None
    by_model: bool = False

    def __post_init__(self) -> None:
        for name, value in (("turns", self.turns), ("compactions", self.compactions)):
            if value is not None and value < 1:
                raise InvalidInput(f"Reset({name}={value!r}): give 1 or more, or leave it out")
        if self.turns is None and self.compactions is None and not self.by_model:
            raise InvalidInput("Reset() never happens: set turns, compactions or by_model")


DEFAULT_COMPACTION = Compaction()
