"""The children of a supervisor, kept: asked each second, replaced when they die, more or fewer as their pools need.

Remembers nothing that it cannot find again: children are named, and those that live are adopted. Knows no run and no
store; what waits is told to it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray

from retinue.actors.children import TRACES, Child, Deaths, Kept, end_all, host_child, known_by, start, trace_child
from retinue.actors.hosts import RunHost
from retinue.actors.placement import Node, beside, host_options, names_of, nodes_for, outside, unmet, within
from retinue.actors.pools import NOBODY, RUNS, WORKERS, Line, Member, Pool, plan, pools_of
from retinue.host.settings import Settings
from retinue.runs.resources import Resources, guest_pool

_LOG = logging.getLogger("retinue.actors")
_PING_TIMEOUT = 30.0
_SLOW = 10.0
"""Seconds after which it is told why an actor has not begun."""
_SHORTEST_ID = 6
_KEPT_BACK = frozenset({"idle", "holds", "declared", "ended"})


class Crew:
    """All actors of a runtime but the supervisor. Methods are called by one thread at a time, `status` by any."""

    def __init__(self, settings: Settings, *, bound: bool) -> None:
        self._settings = settings
        self._plain = settings.model_dump_json()
        self._bound = bound
        self._pools = pools_of(settings, {})
        self._kept: dict[str, Kept] = {}
        self._deaths: dict[str, Deaths] = defaultdict(Deaths)
        self._changed: dict[str, float] = defaultdict(time.monotonic)
        self._lines: Mapping[str, Line] = {}
        self._notes: dict[str, str] = {}
        self._avoided: set[str] = set()
        self._declared = False
        self._turns = 0

    def begin(self) -> None:
        """Start those that are always there, and adopt what lives of an earlier supervisor's."""
        for pool in self._pools.values():
            for number in range(pool.low):
                self._start(host_child(self._plain, pool, number))
        if self._settings.telemetry.emit_structured_events:
            self._start(trace_child(self._plain))
        for name in ray.util.list_named_actors():
            child = known_by(name)
            if child is not None and name not in self._kept:
                with suppress(ValueError):  # it has died meanwhile
                    self._kept[name] = Kept(child, ray.get_actor(name), turn=0)

    def look_after(self) -> None:
        """Hear from each child; replace those that are gone or silent, let go of those that have ended."""
        for kept in list(self._kept.values()):
            try:
                self._look_after(kept)
            except (ray.exceptions.RayError, ValueError) as error:
                _LOG.warning("%s cannot be looked after now: %s", kept.child.name, error)

    def scale(self, lines: Mapping[str, Line]) -> None:
        """Start and drain actors for what waits in each pool."""
        self._lines = lines
        self._learn_pools()
        for pool in self._pools.values():
            try:
                self._apply(pool)
                self._notes[pool.name] = self._note(pool)
            except (ray.exceptions.RayError, ValueError) as error:
                self._notes[pool.name] = str(error)
                _LOG.warning("pool %s cannot be looked after now: %s", pool.name, error)
        self._find_strays()

    def drain(self, name: str) -> list[str]:
        """Drain an actor, a pool or a node (its host name, or the beginning of its id in Ray); the names of the actors
        that leave. Whom a pool cannot do without is made anew, on another node when a node was named."""
        hosts = [kept for kept in list(self._kept.values()) if kept.child.factory is RunHost]
        chosen = [kept for kept in hosts if name in (kept.child.name, kept.child.pool)]
        if not chosen:
            chosen = [kept for kept in hosts if _is_on(name, kept.seen.get("node", ""), kept.seen.get("node_id", ""))]
            self._avoided |= {name} if chosen else set()
        for kept in chosen:
            self._leave(kept)
        return [kept.child.name for kept in chosen]

    def alone(self) -> list[str]:
        """The runs that have an actor of their own."""
        return [run_id for kept in list(self._kept.values()) for run_id in kept.seen.get("holds", ())]

    def kill_holder(self, run_id: str) -> None:
        """Kill the actor that is there for this run alone."""
        for kept in list(self._kept.values()):
            if run_id in kept.seen.get("holds", ()):
                _LOG.warning("run %s is canceled and does not end: %s is killed", run_id, kept.child.name)
                kept.leaving = True
                ray.kill(kept.handle)

    def status(self) -> dict[str, Any]:
        """The actors with what they said last, and the pools with what waits for them."""
        kept = list(self._kept.values())
        return {
            "actors": [_told(each) for each in kept],
            "pools": [self._pool(pool, kept) for pool in self._pools.values()],
        }

    def stop(self) -> None:
        """End all of them, hosts before the traces that they feed."""
        kept = list(self._kept.values())
        end_all([each for each in kept if each.child.factory is RunHost])
        end_all([each for each in kept if each.child.factory is not RunHost])

    # -- one child -----------------------------------------------------------------------------------------

    def _look_after(self, kept: Kept) -> None:
        try:
            answered = kept.ask()
        except ray.exceptions.RayError as error:
            self._gone(kept, error)
            return
        if answered and kept.seen.get("ended"):
            ray.kill(kept.handle)  # hard: a step that nobody could stop would live on in it
            self._forget(kept)
        elif not answered and time.monotonic() - kept.asked_at > _PING_TIMEOUT and self._should_answer(kept):
            _LOG.warning("%s does not answer; it is killed and replaced", kept.child.name)
            ray.kill(kept.handle)
            kept.asked_at = time.monotonic()

    def _should_answer(self, kept: Kept) -> bool:
        """One that has never answered may wait for a node that has what it needs, however long that takes."""
        return bool(kept.seen) or kept.child.pool in ("", RUNS, WORKERS)

    def _gone(self, kept: Kept, error: Exception) -> None:
        """Replace a child that is always there; of the others the next plan decides."""
        pool = self._pools.get(kept.child.pool)
        stays = kept.child.factory is not RunHost or (pool is not None and kept.child.number < pool.low)
        if kept.leaving or not stays:
            if not kept.leaving:
                self._deaths[kept.child.pool].note(error)
                _LOG.warning("%s is gone: %s", kept.child.name, self._deaths[kept.child.pool].error)
            ray.kill(kept.handle)  # it may only have been out of reach
            self._forget(kept)
            return
        if kept.deaths.many:
            _LOG.error("%s died %d times in a minute; waiting", kept.child.name, len(kept.deaths.times))
            return
        kept.deaths.note(error)
        _LOG.warning("%s is gone and is replaced: %s", kept.child.name, kept.deaths.error)
        ray.kill(kept.handle)  # a node that is silent but not yet given up by Ray would keep its name
        child = kept.child if pool is None else host_child(self._plain, pool, kept.child.number)
        self._start(child, kept)

    def _forget(self, kept: Kept) -> None:
        del self._kept[kept.child.name]
        self._changed[kept.child.pool] = time.monotonic()

    def _start(self, child: Child, before: Kept | None = None) -> None:
        """Make a child; one that replaces another is made on the node after that of the other."""
        self._turns += 1
        turn = self._turns if before is None else before.turn + 1
        if child.name == TRACES:
            options = beside(ray.get_runtime_context().get_node_id())
        else:
            pool = self._pools[child.pool]
            nodes = self._nodes()
            options = host_options(pool.needs, pool.placement, turn, nodes, self._selector(nodes))
        deaths = Deaths() if before is None else before.deaths
        self._kept[child.name] = Kept(child, start(child, options), turn, deaths=deaths)
        self._changed[child.pool] = time.monotonic()

    def _nodes(self) -> list[Node]:
        """Where actors may be made: nowhere on a drained node, unless there is no other."""
        nodes = nodes_for(self._bound)
        left = [node for node in nodes if not any(_is_on(name, *names_of(node)) for name in self._avoided)]
        return left or nodes

    def _selector(self, nodes: list[Node]) -> dict[str, str]:
        """What Ray is told of where to look, now and later."""
        if self._bound:
            return within(nodes)
        left = {node["NodeID"] for node in nodes}
        return outside([node for node in nodes_for(bound=False) if node["NodeID"] not in left])

    # -- one pool ------------------------------------------------------------------------------------------

    def _learn_pools(self) -> None:
        """What the hosts say that the project's definitions need; all of them together, while code is changing."""
        said = [kept.seen["declared"] for kept in self._kept.values() if kept.seen.get("declared") is not None]
        if not said:
            return
        self._declared = True
        declared = {name: Resources(**plain) for each in said for name, plain in each.items()}
        self._pools = pools_of(self._settings, declared)
        for kept in list(self._kept.values()):
            if kept.child.factory is RunHost and kept.child.pool not in self._pools:
                self._leave(kept)

    def _apply(self, pool: Pool) -> None:
        members = {kept.child.number: kept for kept in self._kept.values() if kept.child.pool == pool.name}
        settled = time.monotonic() - self._changed[pool.name]
        line = self._lines.get(pool.name, NOBODY)
        decided = plan(pool, [_member(kept) for kept in members.values()], line, settled)
        for number in () if self._deaths[pool.name].many else decided.start:
            _LOG.info("pool %s: %d wait for %.1f s, one more actor", pool.name, line.queued, line.age)
            self._start(host_child(self._plain, pool, number))
        for number in decided.leave:
            self._leave(members[number])

    def _leave(self, kept: Kept) -> None:
        """Drain an actor; one that has never answered has nothing to drain."""
        if kept.leaving:
            return
        _LOG.info("%s is drained: %s runs", kept.child.name, kept.seen.get("active", 0))
        kept.leaving = True
        self._changed[kept.child.pool] = time.monotonic()
        if kept.seen:
            kept.handle.drain.remote()
        else:
            ray.kill(kept.handle)

    def _find_strays(self) -> None:
        """Queued runs that need what no definition declares any more: a host of top-level runs passes them on."""
        guests = guest_pool("")
        strays = [name for name in self._lines if name not in self._pools and not name.startswith(guests)]
        if not strays or not self._declared:
            return
        for kept in self._kept.values():
            if kept.child.pool == RUNS and kept.seen:
                kept.handle.serve_also.remote(strays)

    def _note(self, pool: Pool) -> str:
        """Why an actor of the pool has not begun; empty when all is well."""
        if self._deaths[pool.name].many:
            return f"its actors die: {self._deaths[pool.name].error}"
        late = [
            kept
            for kept in self._kept.values()
            if kept.child.pool == pool.name and not kept.seen and time.monotonic() - kept.made_at > _SLOW
        ]
        if not late:
            return ""
        missing = unmet(pool.needs, self._nodes())
        if missing is None:
            return f"{len(late)} wait until a node has room"
        where = "this machine has, and an SQLite store is of one machine" if self._bound else "the cluster has"
        return f"{missing}: no living node of {where}: add such a node, or change `needs`"

    def _pool(self, pool: Pool, kept: list[Kept]) -> dict[str, Any]:
        line = self._lines.get(pool.name, NOBODY)
        members = [_member(each) for each in kept if each.child.pool == pool.name]
        return {
            "name": pool.name,
            "queued": line.queued,
            "oldest": round(line.age, 1),
            "low": pool.low,
            "high": pool.high,
            **{state: sum(member.state == state for member in members) for state in ("starting", "serving", "leaving")},
            "note": self._notes.get(pool.name, ""),
        }


def _member(kept: Kept) -> Member:
    """A child as plans see it."""
    if not kept.seen:
        return Member(
            kept.child.number, "leaving" if kept.leaving else "starting", idle=time.monotonic() - kept.made_at
        )
    if kept.leaving:
        return Member(kept.child.number, "leaving", kept.seen["active"], kept.seen.get("idle", 0.0))
    return Member(kept.child.number, "serving", kept.seen["active"], kept.seen.get("idle", 0.0))


def _is_on(name: str, hostname: str, node_id: str) -> bool:
    """Whether a name is that of a node; the beginning of an id is enough, if it is long enough."""
    return name == hostname or (len(name) >= _SHORTEST_ID and node_id.startswith(name))


def _told(kept: Kept) -> dict[str, Any]:
    said = {name: value for name, value in kept.seen.items() if name not in _KEPT_BACK}
    state = _member(kept).state
    return {"name": kept.child.name, "pool": kept.child.pool, "state": state, **said}
