"""What runs remember: a memory with its scope, its owner and its provenance, and the port that keeps memories.

Owns the nouns and their limits. Knows no store and no ranking. All times are Unix ns.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic_core import to_json

from retinue.runs.contracts import Frozen, Json, RunRequest
from retinue.runs.errors import InvalidInput

Scope = Literal["agent", "principal", "tenant", "instance"]
SCOPES: tuple[Scope, ...] = ("agent", "principal", "tenant", "instance")

REMEMBER = "remember"
"""The tool by which a model proposes a memory; the gate decides on it as on any other."""

MOST_BYTES = 32_768
"""Of one memory's content as JSON."""
MOST_KEPT = 10_000
"""Memories of one owner."""
MOST_RECALLED = 100
_LONGEST_NAME = 200
_MOST_TAGS = 16


class Space(Frozen):
    """Whose memories: those of an agent, a principal or an instance by name, or (owner "") of the whole tenant."""

    scope: Scope
    owner: str

    def __str__(self) -> str:
        return f"{self.scope} {self.owner}".strip()


class Memory(Frozen):
    """Something remembered. `at` is when; `run_id`, `step`, `agent`, `version` and `principal` say by whom, and from
    what: the step of the run that wrote it. `score` is how well it answers a query; 0 for what was only recent.
    """

    memory_id: str
    space: Space
    content: Json
    key: str | None = None
    tags: tuple[str, ...] = ()
    at: int
    expires_at: int | None = None
    run_id: str
    step: str
    agent: str
    version: str
    principal: str
    score: float = 0.0

    @property
    def text(self) -> str:
        """The content in words."""
        return self.content if isinstance(self.content, str) else to_json(self.content).decode()


class Recall(Frozen):
    """What is looked for: memories of these spaces that share words with `text` and have all `tags`, best first.

    Without a text the newest; `fill` adds the newest when fewer than `k` were found.
    """

    spaces: tuple[Space, ...]
    text: str = ""
    tags: tuple[str, ...] = ()
    k: int = 5
    at: int = 0
    fill: bool = False


class Memories(Protocol):
    """Keeps memories, tenant by tenant: nothing of one tenant is ever seen by another. Content is sealed under the
    tenant's key. Writes are durable when they return; one that is made again with the same id changes nothing.
    """

    async def remember(self, tenant_id: str, memory: Memory, epoch: int | None = None) -> None:
        """Keep a memory, in place of the one of its space with the same key. With `epoch` only while its run has
        that epoch: Fenced otherwise. PermanentError `memory_full` when its owner has too many.
        """
        ...

    async def recall(self, tenant_id: str, wanted: Recall) -> list[Memory]:
        """At most `k` memories."""
        ...

    async def forget(self, tenant_id: str, space: Space, name: str, by: str, at: int) -> int:
        """Forget what has this id or key; how many `by` (an effect's key, or a person) has made it forget."""
        ...


def read_scopes(what: str, listed: Any) -> tuple[Scope, ...]:
    """The scopes that a definition lists. InvalidInput names `what` and the scope."""
    scopes = (listed,) if isinstance(listed, str) else tuple(listed)
    wrong = next((scope for scope in scopes if scope not in SCOPES), None)
    if wrong is not None:
        raise InvalidInput(f"{what}: memory scope {wrong!r}: it is one of {', '.join(SCOPES)}")
    return tuple(dict.fromkeys(scopes))


def space_of(request: RunRequest, scope: str, of: str | None = None) -> Space:
    """The space that a scope means for a run; `of` names another agent. InvalidInput when the run has no such."""
    if scope not in SCOPES:
        raise InvalidInput(f"memory scope {scope!r}: it is one of {', '.join(SCOPES)}")
    if of is not None and scope != "agent":
        raise InvalidInput(f"memory of {of!r}: only another agent's memory can be named, not another {scope}'s")
    owners = {
        "agent": of or request.target,
        "principal": request.principal_id,
        "tenant": "",
        "instance": request.agent_instance_id,
    }
    owner = owners[scope]
    if owner is None:
        raise InvalidInput(f"run {request.run_id} belongs to no instance: use the scope agent, principal or tenant")
    return Space(scope=scope, owner=owner)


def problem_of(content: Json, key: str | None, tags: tuple[str, ...]) -> str | None:
    """Why something cannot be remembered, in words; None when it can."""
    if content in (None, "", [], {}):
        return "there is nothing to remember: give a text or JSON"
    size = len(to_json(content))
    if size > MOST_BYTES:
        return f"{size:,} bytes are more than the {MOST_BYTES:,} that a memory may have: keep what matters of it"
    if key is not None and not 0 < len(key) <= _LONGEST_NAME:
        return f"key {key[:40]!r}: give 1 to {_LONGEST_NAME} letters, or none"
    if len(tags) > _MOST_TAGS or any(not 0 < len(tag) <= _LONGEST_NAME for tag in tags):
        return f"tags {tags!r:.80}: give at most {_MOST_TAGS}, each of 1 to {_LONGEST_NAME} letters"
    return None
