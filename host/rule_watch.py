"""The duty of the rules: looks every few seconds whether they have changed, away from the loop that hosts runs.

Knows neither what a rule is nor what makes a set of them good: that is the gate's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from retinue.host.settings import Settings
from retinue.policy.invariants import Invariants
from retinue.policy.load import make_gate, read_texts
from retinue.runs.errors import ConfigError

_LOG = logging.getLogger("retinue.host")


class Changing(Protocol):
    """A gate whose rules may change."""

    def look(self) -> bool: ...


class RuleWatch:
    """Looks every `every` seconds; 0: never."""

    def __init__(self, gate: Changing, every: float) -> None:
        self._gate = gate
        self._every = every

    async def watch_for_ever(self) -> None:
        """Done beside hosting. Parsing many rules takes a while, so it happens in a thread."""
        while self._every:
            await asyncio.sleep(self._every)
            try:
                await asyncio.to_thread(self._gate.look)
            except Exception:  # a defect here must not leave the rules unwatched
                _LOG.exception("the rules could not be looked at; those in force stay")


class RuleCheck:
    """What is wrong with the rules as they stand in their folder, for a process that has none in force.

    A change counts when it has stood still between two questions, as a gate takes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._texts: dict[str, str] | None = None
        self._judged: dict[str, str] | None = None
        self._problem: str | None = None

    def problem(self) -> str | None:
        """What is wrong, with file, line and remedy; None when they can be used, or are not looked at."""
        if not self._settings.policy.reload:
            return None
        try:
            texts = read_texts(self._settings.policy_folder)
        except (ConfigError, OSError) as error:
            return str(error)
        still, self._texts = texts == self._texts, texts
        if still and texts != self._judged:
            self._judged, self._problem = texts, self._judge(texts)
        return self._problem

    def _judge(self, texts: dict[str, str]) -> str | None:
        try:
            make_gate(texts, Invariants(), self._settings.roles)
        except ConfigError as error:
            return str(error)
        return None
