"""What the self-tests of the sandbox's backends found, made once in a session: each is real, and takes seconds.

Tests of the self-tests themselves do not use it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from retinue.sandbox.backends.bubblewrap import Bubblewrap
from retinue.sandbox.backends.landlock import Landlock
from retinue.sandbox.backends.port import Report

FOUND: dict[tuple[str, int | None], Report] = {}
"""By backend and the user that it was tried as."""


@pytest.fixture
def tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that was tried in this session is not tried anew by each room."""
    for backend in (Bubblewrap, Landlock):
        monkeypatch.setattr(backend, "_try_out", _remembering(backend._try_out))


def _remembering(try_out: Callable[[Any], Awaitable[Report]]) -> Callable[[Any], Awaitable[Report]]:
    async def remembered(self: Any) -> Report:
        known = FOUND.get((self.name, self._uid)) or await try_out(self)
        if any(finding.assurance != "absent" for finding in known.findings.values()):
            FOUND[self.name, self._uid] = known
        return known

    return remembered
