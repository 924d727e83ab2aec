"""The doors of an adopted function: how an agent of another framework reaches models and capabilities.

Owns what the function is given and the port of the endpoint that serves it. Knows no HTTP and no framework, and
nothing of how what goes through a door is carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from retinue.runs.contracts import Json, RunRequest
from retinue.runs.definitions import ToolLike
from retinue.runs.errors import RetinueError, UnknownName
from retinue.runs.journal import Outcome
from retinue.runs.messages import ModelRequest, ToolSpec
from retinue.runs.values import value_of


class DoorsClosed(RetinueError):
    """The function that these doors were given to has ended or was stopped; nothing was done."""


class Keeper(Protocol):
    """The run behind the doors of one call of an adopted function. What is asked twice is done once.

    All raise UnknownName, DoorsClosed, BudgetExhausted (nothing was spent) and TransientError(code="busy") for too
    much at once; every other end is an outcome, durable before it is returned.
    """

    request: RunRequest
    model: str

    async def complete(self, request: ModelRequest) -> Outcome: ...

    async def call(self, tool: str, arguments: dict[str, Json]) -> Outcome: ...

    async def step(self, function: Callable[..., Any], arguments: list[Json], repeatable: bool) -> Outcome: ...

    def tools(self) -> tuple[ToolSpec, ...]: ...


@dataclass(frozen=True, slots=True)
class Access:
    """Where models are reached over HTTP, and the token that opens it for as long as the function runs."""

    base_url: str
    api_key: str = field(repr=False)


class Endpoint(Protocol):
    """An OpenAI-compatible endpoint on this machine, shared by all runs of a host."""

    def open(self, keeper: Keeper) -> AbstractAsyncContextManager[Access]:
        """Serve a keeper until the block is left; then its token is worth nothing."""
        ...

    async def close(self) -> None:
        """Serve nobody any more."""
        ...


class Doors:
    """Given to an adopted function as its first argument.

    `base_url`, `api_key` and `model` are what any OpenAI client takes; the protocol is Chat Completions. `request`
    says who the run is.
    """

    def __init__(self, access: Access, keeper: Keeper) -> None:
        self.base_url = access.base_url
        self.api_key = access.api_key
        self.model = keeper.model
        self.request = keeper.request
        self._keeper = keeper

    async def call(self, tool: ToolLike | str, /, **arguments: Json) -> Any:
        """Call a capability through the gateway; returns its result as JSON. Raises as `ctx.call` does."""
        name = tool if isinstance(tool, str) else tool.capability.name
        return value_of(await self._keeper.call(name, arguments))

    async def step(self, function: Callable[..., Any], /, *arguments: Json, repeatable: bool = True) -> Any:
        """Run a plain function with effects, such as a tool of the agent's own, once: `ctx.step` from inside."""
        return value_of(await self._keeper.step(function, list(arguments), repeatable))

    def tools(self, *names: str) -> tuple[ToolSpec, ...]:
        """Specifications (name, description, input_schema) of these capabilities, or of all of the project.

        Policy decides when one is called, not here.
        """
        found = {spec.name: spec for spec in self._keeper.tools()}
        missing = [name for name in names if name not in found]
        if missing:
            raise UnknownName(f"there is no tool {missing[0]!r}; there are: {', '.join(sorted(found)) or 'none'}")
        return tuple(found[name] for name in names or sorted(found))
