"""Memories in the store: written whole or not at all, found by keyed hashes of their words, opened last.

Implements the port `runs.memories.Memories`. The index holds no word: a term is hashed with the tenant's key together
with the space it stands in, so without the key nothing can be looked up, and equal words of two spaces look unlike.
Ranking is BM25 over at most so many postings, the newest first. Knows no gate and no run in progress.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from retinue.runs.contracts import Json
from retinue.runs.errors import Fenced, PermanentError, StoreError
from retinue.runs.lexical import content_terms
from retinue.runs.memories import MOST_KEPT, Memory, Recall, Space
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec
from retinue.store.rows import many, one
from retinue.store.statements import sql

_LOG = logging.getLogger("retinue.store")
_MOST_TERMS = 400
"""Distinct words of one memory that it can be found by."""
_MOST_ASKED = 32
"""Distinct words of a query that are looked up."""
_POSTINGS = 20_000
_EXPIRED_AT_ONCE = 100
_K1, _B = 1.2, 0.75
"""The usual constants of BM25 (Robertson and Zaragoza, 2009)."""

_FIELDS = ("memory_id", "at", "expires_at", "run_id", "step", "agent", "version", "principal")
_COLUMNS = f"tenant_id, num, state, sealed, scope, owner, {', '.join(_FIELDS)}"
_SPACE = "tenant_id = :tenant AND scope = :scope AND owner = :owner AND state = 'kept'"

Apply = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Has an operation applied to a connection of the store."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A memory as the store holds it: one that has ended (replaced, forgotten, expired) has no content."""

    tenant_id: str
    memory: Memory
    state: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Which memories are listed: None leaves a field open."""

    tenant_id: str | None = None
    scope: str | None = None
    owner: str | None = None
    run_id: str | None = None
    everything: bool = False
    limit: int = 200


class StoreMemories:
    """`read` is for short reads; `submit` is the way to the writer."""

    def __init__(self, read: Apply, submit: Apply, codec: FrameCodec) -> None:
        self._read = read
        self._submit = submit
        self._codec = codec

    async def remember(self, tenant_id: str, memory: Memory, epoch: int | None = None) -> None:
        """See Memories."""
        row = self._row(tenant_id, memory)
        terms = self._terms(tenant_id, memory)
        await self._submit(lambda connection: remember(connection, row, terms, epoch))

    async def recall(self, tenant_id: str, wanted: Recall) -> list[Memory]:
        """See Memories."""
        found: list[Memory] = await self._read(lambda connection: self._find(connection, tenant_id, wanted))
        return found

    async def forget(self, tenant_id: str, space: Space, name: str, by: str, at: int) -> int:
        """See Memories."""
        values = _named(tenant_id, space) | {"id": name, "name": self._name(tenant_id, space, name)}
        count: int = await self._submit(lambda connection: forget(connection, values, by, at))
        return count

    async def listed(self, listing: Listing) -> list[Kept]:
        """Memories, newest first; what has ended only when everything is listed."""
        found: list[Kept] = await self._read(lambda connection: self._list(connection, listing))
        return found

    async def get(self, name: str) -> list[Kept]:
        """The memories whose id this is, or begins or ends with."""
        query = f"SELECT {_COLUMNS} FROM memories WHERE memory_id = :id OR memory_id LIKE :first LIMIT 3"
        values = {"id": name, "first": f"{name}%"}
        rows: list[Any] = await self._read(lambda connection: many(connection, query, values))
        return [self._kept(row) for row in rows]

    # -- inside ------------------------------------------------------------------------------------------

    def _row(self, tenant_id: str, memory: Memory) -> dict[str, Any]:
        body = {"content": memory.content, "key": memory.key, "tags": list(memory.tags)}
        return {
            **_named(tenant_id, memory.space),
            "memory_id": memory.memory_id,
            "name": None if memory.key is None else self._name(tenant_id, memory.space, memory.key),
            "at": memory.at,
            "expires_at": memory.expires_at,
            "run_id": memory.run_id,
            "step": memory.step,
            "agent": memory.agent,
            "version": memory.version,
            "principal": memory.principal,
            "words": len(content_terms(memory.text)),
            "sealed": self._codec.seal(tenant_id, body, _bound_to(memory.memory_id)),
        }

    def _terms(self, tenant_id: str, memory: Memory) -> list[tuple[str, int]]:
        counted = Counter(content_terms(" ".join(filter(None, (memory.text, memory.key))))).most_common(_MOST_TERMS)
        found = {self._term(tenant_id, memory.space, word): times for word, times in counted}
        return list((found | {self._term(tenant_id, memory.space, f"#{tag}"): 1 for tag in memory.tags}).items())

    def _term(self, tenant_id: str, space: Space, word: str) -> str:
        return self._codec.address(tenant_id, f"term\0{space.scope}\0{space.owner}\0{word}")[:24]

    def _name(self, tenant_id: str, space: Space, key: str) -> str:
        return self._codec.address(tenant_id, f"key\0{space.scope}\0{space.owner}\0{key}")

    def _find(self, connection: Connection, tenant_id: str, wanted: Recall) -> list[Memory]:
        words = list(dict.fromkeys(content_terms(wanted.text)))[:_MOST_ASKED]
        scored = self._scored(connection, tenant_id, wanted, words) if words or wanted.tags else {}
        nums = sorted(scored, key=lambda num: (-scored[num], -num))[: wanted.k]
        if not (words or wanted.tags) or (wanted.fill and len(nums) < wanted.k):
            newest = _newest(connection, tenant_id, wanted)
            nums += [num for num in newest if num not in scored][: wanted.k - len(nums)]
        return self._open(connection, tenant_id, nums, scored)

    def _scored(self, connection: Connection, tenant_id: str, wanted: Recall, words: Sequence[str]) -> dict[int, float]:
        """The score of every memory that has all tags and, where words are asked for, one of them."""
        asked = {self._term(tenant_id, space, word): word for space in wanted.spaces for word in words}
        tags = {self._term(tenant_id, space, f"#{tag}"): tag for space in wanted.spaces for tag in wanted.tags}
        values = {"tenant": tenant_id, "at": wanted.at, "most": _POSTINGS, "terms": json.dumps([*asked, *tags])}
        rows = many(connection, sql("memory_postings"), values)
        tagged: Counter[int] = Counter(num for term, num, _, _ in rows if term in tags)
        postings = [(asked[term], num, times, length) for term, num, times, length in rows if term in asked]
        counted = sum(_count(connection, tenant_id, space) for space in wanted.spaces)
        scores = rank(postings, counted) if words else dict.fromkeys(tagged, 0.0)
        return {num: score for num, score in scores.items() if tagged[num] == len(set(wanted.tags))}

    def _open(
        self, connection: Connection, tenant_id: str, nums: Sequence[int], scores: dict[int, float]
    ) -> list[Memory]:
        """The memories of these numbers, in this order; those of a lost key are left out."""
        query = (
            f"SELECT {_COLUMNS} FROM memories WHERE tenant_id = :tenant AND state = 'kept'"
            " AND num IN (SELECT CAST(value AS bigint) FROM json_each(:nums))"
        )
        rows = many(connection, query, {"tenant": tenant_id, "nums": json.dumps(nums)})
        opened = {row[1]: self._kept(row, round(scores.get(row[1], 0.0), 4)) for row in rows}
        return [opened[num].memory for num in nums if num in opened and opened[num].memory.content is not None]

    def _list(self, connection: Connection, listing: Listing) -> list[Kept]:
        given = {"tenant_id": listing.tenant_id, "scope": listing.scope}
        given |= {"owner": listing.owner, "run_id": listing.run_id}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        tests = [f"{name} = :{name}" for name in values] + ([] if listing.everything else ["state = 'kept'"])
        where = f"WHERE {' AND '.join(tests)}" if tests else ""
        query = f"SELECT {_COLUMNS} FROM memories {where} ORDER BY num DESC LIMIT :most"
        return [self._kept(row) for row in many(connection, query, values | {"most": listing.limit})]

    def _kept(self, row: tuple[Any, ...], score: float = 0.0) -> Kept:
        tenant_id, _, state, sealed, scope, owner, *rest = row
        said: dict[str, Any] = dict(zip(_FIELDS, rest, strict=True))
        body = self._opened(tenant_id, said["memory_id"], sealed)
        body = body if isinstance(body, dict) else {"content": None, "key": None, "tags": []}
        return Kept(tenant_id, Memory(space=Space(scope=scope, owner=owner), score=score, **body, **said), state)

    def _opened(self, tenant_id: str, memory_id: str, sealed: Any) -> Json:
        """The sealed part; None when its key is lost, also when the tenant has had another one since."""
        if sealed is None:
            return None
        try:
            return self._codec.open(tenant_id, bytes(sealed), _bound_to(memory_id))
        except StoreError as error:
            _LOG.warning("memory %s is left out: %s", memory_id, error)
            return None


def remember(connection: Connection, row: dict[str, Any], terms: Sequence[tuple[str, int]], epoch: int | None) -> None:
    """Insert a memory in place of the one with its key; once, however often it is asked for."""
    if epoch is not None:
        _check_owner(connection, row, epoch)
    if many(connection, "SELECT 1 FROM memories WHERE memory_id = ?", (row["memory_id"],)):
        return
    _expire(connection, row)
    space = {name: row[name] for name in ("tenant", "scope", "owner")}
    if row["name"] is not None:
        found = many(
            connection, f"SELECT num FROM memories WHERE {_SPACE} AND name = :name", space | {"name": row["name"]}
        )
        _end(connection, (num for (num,) in found), "replaced", (row["memory_id"], row["at"]))
    if int(one(connection, f"SELECT count(*) FROM memories WHERE {_SPACE}", space)[0]) >= MOST_KEPT:
        where = f"{row['scope']} {row['owner']}".strip()
        raise PermanentError(
            f"{where} has {MOST_KEPT:,} memories already: forget some, or give them a `ttl`", code="memory_full"
        )
    num = int(one(connection, sql("keep_memory"), row)[0])
    connection.executemany(
        "INSERT INTO memory_terms (term, memory, times) VALUES (?, ?, ?)", [(term, num, times) for term, times in terms]
    )


def forget(connection: Connection, values: dict[str, Any], by: str, at: int) -> int:
    """End what has this id or key; how many `by` has ended so far."""
    query = f"SELECT num FROM memories WHERE {_SPACE} AND (memory_id = :id OR name = :name)"
    _end(connection, (num for (num,) in many(connection, query, values)), "forgotten", (by, at))
    ended = "SELECT count(*) FROM memories WHERE ended_by = ? AND state = 'forgotten' AND tenant_id = ?"
    return int(one(connection, ended, (by, values["tenant"]))[0])


def rank(postings: Iterable[tuple[str, int, int, int]], total: int) -> dict[int, float]:
    """BM25 of postings (word, document, times, length), `total` documents there are; pure."""
    listed = list(postings)
    lengths = {num: length for _, num, _, length in listed}
    average = sum(lengths.values()) / len(lengths) if lengths else 1.0
    found = Counter(word for word, _, _, _ in listed)
    scores: dict[int, float] = {}
    for word, num, times, length in listed:
        rarity = math.log(1 + (max(total, found[word]) - found[word] + 0.5) / (found[word] + 0.5))
        weight = times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * length / max(average, 1.0)))
        scores[num] = scores.get(num, 0.0) + rarity * weight
    return scores


def _check_owner(connection: Connection, row: dict[str, Any], epoch: int) -> None:
    query = "SELECT 1 FROM runs WHERE run_id = ? AND tenant_id = ? AND epoch = ?"
    if not many(connection, query, (row["run_id"], row["tenant"], epoch)):
        raise Fenced(f"run {row['run_id']}: epoch {epoch} is not its newest: this owner must stop and writes no memory")


def _expire(connection: Connection, row: dict[str, Any]) -> None:
    """Empty some of what nobody recalls any more."""
    query = f"SELECT num FROM memories WHERE {_SPACE} AND expires_at <= :at ORDER BY expires_at LIMIT :most"
    values = {name: row[name] for name in ("tenant", "scope", "owner", "at")} | {"most": _EXPIRED_AT_ONCE}
    _end(connection, (num for (num,) in many(connection, query, values)), "expired", ("its ttl", row["at"]))


def _end(connection: Connection, nums: Iterable[int], state: str, cause: tuple[str, int]) -> None:
    """Take the content away; that there was a memory, and whose, stays."""
    by, at = cause
    query = "UPDATE memories SET state = ?, ended_by = ?, ended_at = ?, sealed = NULL WHERE num = ?"
    for num in nums:
        connection.execute(query, (state, by, at, num))
        connection.execute("DELETE FROM memory_terms WHERE memory = ?", (num,))


def _count(connection: Connection, tenant_id: str, space: Space) -> int:
    return int(one(connection, f"SELECT count(*) FROM memories WHERE {_SPACE}", _named(tenant_id, space))[0])


def _newest(connection: Connection, tenant_id: str, wanted: Recall) -> list[int]:
    query = f"SELECT num FROM memories WHERE {_SPACE} AND (expires_at IS NULL OR expires_at > :at)"
    found: list[int] = []
    for space in wanted.spaces:
        values = _named(tenant_id, space) | {"at": wanted.at, "most": wanted.k}
        found += [num for (num,) in many(connection, f"{query} ORDER BY num DESC LIMIT :most", values)]
    return sorted(found, reverse=True)


def _named(tenant_id: str, space: Space) -> dict[str, Any]:
    return {"tenant": tenant_id, "scope": space.scope, "owner": space.owner}


def _bound_to(memory_id: str) -> str:
    return f"memory:{memory_id}"
