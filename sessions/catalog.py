"""The catalog: every capability of a process by its name, and what a capability must be able to do.

Owns the names and the face that native functions and remote servers share. Knows no gate and no caller's
rights.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from retinue.runs.capabilities import Caller, CallResult, Capability
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.sessions import Link, Pause

Arguments = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call ready to be made: `start` returns the outcome, or an awaitable of it when not `blocking`.

    `spare` are seconds beyond the capability's timeout, for a call that keeps its own time and needs some to connect.
    `ours` says that its errors are the runtime's: only then do their codes say that a call was not made.
    """

    start: Callable[[], object]
    blocking: bool
    spare: float = 0.0
    ours: bool = False


class Tool(Protocol):
    """Something that can be called under a capability's contract."""

    @property
    def capability(self) -> Capability:
        """The contract."""
        ...

    @property
    def origin(self) -> str:
        """Where it is defined, for messages: `module.function` or a server's address."""
        ...

    def accept(self, arguments: Arguments) -> Arguments:
        """The arguments as plain JSON, defaults filled in; PermanentError `invalid_arguments` otherwise."""
        ...

    def invoke(self, arguments: Arguments, caller: Caller, link: Link | None) -> Invocation:
        """The call, not yet made or gone on with; its outcome may be a Pause where it was given a link."""
        ...

    def invoke_probe(self, arguments: Arguments, caller: Caller) -> Invocation | None:
        """The question whether this call has happened (outcome None: no); None when it cannot be asked."""
        ...

    def shape(self, outcome: object) -> CallResult | Pause:
        """The outcome as valid JSON within the cap; PermanentError `invalid_output` or `too_large`."""
        ...


class Catalog:
    """Tools by name. The same tool may be given twice; two tools of one name are refused."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self._add(tool)

    def _add(self, tool: Tool) -> None:
        name = tool.capability.name
        known = self._tools.setdefault(name, tool)
        if known is not tool:
            raise InvalidInput(
                f"two capabilities are named {name!r}: {known.origin} and {tool.origin}. "
                "Give one of them another name: @tool(name=...)."
            )

    def get(self, name: str) -> Tool:
        """The tool of this name. Raises UnknownName with close matches."""
        tool = self._tools.get(name)
        if tool is not None:
            return tool
        close = difflib.get_close_matches(name, self._tools, 3)
        if close:
            hint = f"Did you mean {', '.join(repr(match) for match in close)}?"
        else:
            hint = f"Known: {', '.join(sorted(self._tools)[:20]) or 'none'}."
        raise UnknownName(f"no capability is named {name!r}. {hint}")

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """All contracts, in the order of their names."""
        return tuple(self._tools[name].capability for name in sorted(self._tools))

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools
