"""What a function may do with memory: remember, recall, forget. Each is a journaled step that the gate is asked about.

Owns the three methods of the context. Knows neither how memories are kept nor how the gate is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import PydanticSerializationError, from_json, to_json

from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.executor import Executor
from retinue.runs.joins import seconds
from retinue.runs.memories import MOST_RECALLED, Memory, Scope, problem_of, space_of
from retinue.runs.values import value_of


class Remembers:
    """The part of a context that has to do with memory."""

    _executor: Executor

    async def remember(
        self,
        content: Json,
        *,
        scope: Scope = "agent",
        of: str | None = None,
        key: str | None = None,
        ttl: float | str | None = None,
        tags: Sequence[str] = (),
    ) -> str:
        """Keep a text or JSON for later runs; returns its id. It takes the place of what has the same `key`.

        `scope` says whose it is: this agent's or workflow's (`of` names another agent), the principal's, the
        tenant's or the instance's. After `ttl` (seconds, or text such as `30d`) it is recalled no more. The gate's
        stage `memory` decides: PolicyDenied when it says no. InvalidInput for what cannot be kept.
        """
        arguments = self._named(scope, of) | {"content": _plain(content), "key": key, "tags": list(tags)}
        problem = problem_of(arguments["content"], key, tuple(tags))
        if problem is not None:
            raise InvalidInput(f"ctx.remember: {problem}")
        if ttl is not None:
            arguments["ttl"] = seconds(ttl)
        value = value_of(await self._executor.issue("remember", "remember", arguments, {}))
        return str(value["memory_id"])

    async def recall(
        self,
        query: str = "",
        *,
        scope: Scope | Sequence[Scope] = "agent",
        of: str | None = None,
        k: int = 5,
        tags: Sequence[str] = (),
        fill: bool = False,
    ) -> list[Memory]:
        """At most `k` memories that share words with the query and have all the tags, best first; without a query the
        newest. `fill` adds the newest when fewer were found. PolicyDenied when the gate says no.
        """
        if not 1 <= k <= MOST_RECALLED:
            raise InvalidInput(f"ctx.recall(k={k}): give 1 to {MOST_RECALLED}")
        scopes = (scope,) if isinstance(scope, str) else tuple(scope)
        spaces = [space_of(self._executor.request, one, of if one == "agent" else None) for one in scopes]
        if not spaces:
            raise InvalidInput("ctx.recall: name at least one scope")
        arguments: Json = {
            "spaces": [space.model_dump() for space in spaces],
            "query": query,
            "k": k,
            "tags": list(tags),
            "fill": fill,
        }
        found = value_of(await self._executor.issue("recall", "recall", arguments, {}))
        return [Memory.model_validate(each) for each in found]

    async def forget(self, name: str, *, scope: Scope = "agent", of: str | None = None) -> bool:
        """Forget what has this id or key; its content is gone. False when there was no such memory."""
        arguments = self._named(scope, of) | {"name": name}
        return bool(value_of(await self._executor.issue("forget", "forget", arguments, {}))["forgotten"])

    def _named(self, scope: str, of: str | None) -> dict[str, Json]:
        return dict(space_of(self._executor.request, scope, of).model_dump())


def _plain(content: Json) -> Json:
    try:
        return from_json(to_json(content))
    except PydanticSerializationError as error:
        raise InvalidInput(f"ctx.remember: the content is not JSON: {error}; pass plain data") from None
