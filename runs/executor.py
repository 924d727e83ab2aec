"""What a run's context needs of the execution behind it. A protocol, so that contexts know no loop and no replay."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from retinue.runs.contracts import Json, RunRequest
from retinue.runs.definitions import Definition
from retinue.runs.journal import EffectKind, Outcome


class Executor(Protocol):
    """The execution as its context sees it."""

    request: RunRequest

    def issue(self, effect: EffectKind, name: str, arguments: Json, options: dict[str, Any]) -> Awaitable[Outcome]: ...

    def record(self, topic: str, facts: dict[str, Json], content: Json) -> None: ...

    def continue_as_new(self, name: str, state: Json) -> Awaitable[Any]: ...

    def definition(self, target: Definition | str) -> Definition: ...

    def now_ns(self) -> int: ...
