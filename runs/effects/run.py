"""What effects may use of the execution they belong to.

A protocol, so that effects know no loop and no replay.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from retinue.runs.arrivals import Group, News
from retinue.runs.budgets import Ledger
from retinue.runs.contracts import RunRequest
from retinue.runs.definitions import Definition
from retinue.runs.history import History
from retinue.runs.journal import AnyEntry
from retinue.runs.live_sandboxes import LiveSandboxes
from retinue.runs.live_sessions import Sessions
from retinue.runs.ownership import Appended, LeasedRun
from retinue.runs.ports import Services


class Run(Protocol):
    """The execution as its effects see it."""

    leased: LeasedRun
    request: RunRequest
    services: Services
    history: History
    ledger: Ledger
    news: News
    sessions: Sessions
    boxes: LiveSandboxes

    def note(self, *entries: AnyEntry) -> None:
        """Buffer entries; they ride with the next append."""
        ...

    def write(self, *entries: AnyEntry, **extra: Any) -> Awaitable[Appended]:
        """Append durably; await it before anything depends on it."""
        ...

    def take(self, news: News) -> None:
        """Adopt newer news."""
        ...

    def take_group(self, group: Group) -> None:
        """Adopt what this owner itself changed of a group."""
        ...

    def definition(self, target: Definition | str) -> Definition:
        """A definition by name."""
        ...
