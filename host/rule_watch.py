"""The duty of the rules: looks every few seconds whether they have changed, away from the loop that hosts runs.

Knows neither what a rule is nor when a set of them is good: that is the gate's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

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
