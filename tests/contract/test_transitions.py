"""Random walks over both ports on both stores at once: whatever happens, the rules of a run's life hold.

Every operation is done to the double and to a real store; they must answer alike and agree on every record.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.doubles.memory_store import MemoryStore
from tests.doubles.places import KINDS, REAL, AnyStore, Place, Places
from tests.doubles.shapes import START, Owner, child_of, entries_of, host, new_run, opened, own, said

from retinue.runs.arrivals import Group
from retinue.runs.contracts import NOTHING, Json, PendingRequest, RunRecord, Status, Usage
from retinue.runs.control import RunQuery
from retinue.runs.errors import Fenced, RetinueError
from retinue.runs.machine import TRANSITIONS, WAITING
from retinue.runs.ownership import HostInfo, LeasedRun, Spawn, Yield
from retinue.runs.retries import Retry

MOST = 10_000
PLACES = st.integers(0, 29)
HOSTS = st.integers(0, 1)
SEEN_FIELDS = frozenset({"status", "reason", "epoch", "position", "wake_at", "cancel", "held", "usage", "started_at"})
"""What the stores must agree on in a record."""


class Pair:
    """One owner, by hand, on each store."""

    def __init__(self, owners: list[Owner]) -> None:
        self.owners = owners
        self.run_id = owners[0].leased.request.run_id
        self.epoch = owners[0].leased.epoch


class Stores:
    """Both stores, and what each operation did to both."""

    def __init__(self, place: Place) -> None:
        self._runner = asyncio.Runner()
        self.real = place.open()
        self.double = MemoryStore()
        self.both: tuple[AnyStore, AnyStore] = (self.double, self.real)

    def close(self) -> None:
        self.run(self.real.close())
        self._runner.close()

    def run(self, work: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await work

        return self._runner.run(wait())

    def do(self, operation: Callable[[AnyStore], Awaitable[Any]]) -> tuple[Any, Any]:
        """Do it to both; both answer, or both refuse with an error of the same kind, which is returned."""

        async def attempt(store: AnyStore) -> Any:
            try:
                return await operation(store)
            except RetinueError as error:
                return error

        double, real = (self.run(attempt(store)) for store in self.both)
        if isinstance(double, Exception) or isinstance(real, Exception):
            assert type(double) is type(real), (double, real)
        return double, real

    def told(self, pair: Pair, act: Callable[[Owner], Awaitable[Any]]) -> Any:
        """Let an owner act on each store."""

        def chosen(store: AnyStore) -> Owner:
            return pair.owners[self.both.index(store)]

        double, real = self.do(lambda store: act(chosen(store)))
        if not isinstance(double, Exception):
            assert double == real
            assert pair.owners[0].position == pair.owners[1].position
        return double


def recount(group: Group, children: list[RunRecord]) -> tuple[Any, ...]:
    """What the group's counters must be by the rows of its children, budgets apart."""
    counts = Counter(child.status for child in children)
    ended = [child for child in children if child.status.terminal]
    ok = counts[Status.completed]
    used = sum((child.usage for child in ended), NOTHING)
    return len(children), len(children) - len(ended), ok, len(ended) - ok, used


class Lives(RuleBasedStateMachine):
    """Runs, hosts and owners; some of the owners are not owners any more."""

    def __init__(self, places: Places, kind: str) -> None:
        super().__init__()
        self.leaving = ExitStack()
        self.stores = Stores(self.leaving.enter_context(places.cleared(kind)))
        self.names = 0
        self.known: dict[str, RunRecord] = {}
        self.children: dict[tuple[str, str], list[tuple[str, Usage]]] = {}
        self.hosts: list[HostInfo] = []
        self.pairs: list[Pair] = []

    def teardown(self) -> None:
        try:
            self.journals_grow_without_holes()
        finally:
            self.stores.close()
            self.leaving.close()

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}-{self.names:04d}"

    def run_at(self, place: int) -> str:
        """A run, by number."""
        names = sorted(self.known)
        return names[place % len(names)]

    def pair_at(self, place: int) -> Pair:
        """An owner, by number: mostly of a run in progress, at times one of the past."""
        mine = [pair for pair in self.pairs if self.is_newest(pair)]
        among = self.pairs if place % 5 == 0 or not mine else mine
        return among[place % len(among)]

    def is_newest(self, pair: Pair) -> bool:
        record = self.known[pair.run_id]
        return record.status is Status.in_progress and record.epoch == pair.epoch

    @initialize()
    def begin(self) -> None:
        for place in range(2):
            self.hosts.append(host(self.name("host")))
            self.stores.do(lambda store, place=place: store.register(self.hosts[place]))
        for tenant in ("acme", "globex"):
            self.submit(0, tenant)

    # -- anyone ------------------------------------------------------------------------------------------

    @rule(priority=st.integers(-1, 1), tenant=st.sampled_from(["acme", "globex"]))
    def submit(self, priority: int, tenant: str) -> None:
        name = self.name("run")
        self.stores.do(lambda store: store.submit([new_run(name, priority=priority, tenant_id=tenant)]))

    @rule(place=PLACES)
    def cancel(self, place: int) -> None:
        run = self.run_at(place)
        double, real = self.stores.do(lambda store: store.cancel(run, "ana", START))
        assert double == real

    @rule(place=PLACES, held=st.booleans())
    def hold(self, place: int, held: bool) -> None:
        run = self.run_at(place)
        double, real = self.stores.do(lambda store: store.hold(run, held))
        assert double == real

    @rule(place=PLACES)
    def signal(self, place: int) -> None:
        run = self.run_at(place)
        self.stores.do(lambda store: store.signal(run, "go", {"n": 1}, START))

    @rule(place=PLACES, verdict=st.sampled_from(["answered", "approved", "denied"]))
    def resolve(self, place: int, verdict: str) -> None:
        requests = self.stores.run(self.stores.real.requests(open_only=False))
        if requests:
            request_id = requests[place % len(requests)].request_id
            self.stores.do(lambda store: store.resolve(request_id, verdict, "ben", START, {"said": verdict}))

    @rule(place=PLACES)
    def retry(self, place: int) -> None:
        run = self.run_at(place)
        double, real = self.stores.do(lambda store: store.retry(run, Retry(by="ben", at=START)))
        if not isinstance(double, Exception):
            assert sorted(double) == sorted(real)

    # -- hosts -------------------------------------------------------------------------------------------

    @rule(one=HOSTS, place=PLACES)
    def lease_one(self, one: int, place: int) -> None:
        run = self.run_at(place)
        self.taken(lambda store: store.lease(self.hosts[one], "", 1, START, only=run))

    @rule(one=HOSTS, pool=st.sampled_from(["runs", "workers"]), limit=st.integers(1, 3))
    def lease(self, one: int, pool: str, limit: int) -> None:
        self.taken(lambda store: store.lease(self.hosts[one], pool, limit, START))

    def taken(self, lease: Callable[[AnyStore], Awaitable[list[LeasedRun]]]) -> None:
        double, real = self.stores.do(lease)
        facts = [
            [(run.request.run_id, run.epoch, run.position, run.news.seq, run.news.cancel) for run in found]
            for found in (double, real)
        ]
        assert sorted(facts[0]) == sorted(facts[1])
        by_id = {run.request.run_id: run for run in double}
        for run in real:
            mine = by_id[run.request.run_id]
            assert [frame.entries for frame in mine.frames] == [frame.entries for frame in run.frames]
            assert mine.news.groups == run.news.groups and set(mine.news.answers) == set(run.news.answers)
            self.pairs.append(Pair([Owner(self.stores.double, mine), Owner(self.stores.real, run)]))

    @rule(one=HOSTS)
    def retire(self, one: int) -> None:
        self.stores.do(lambda store: store.retire(self.hosts[one].host_id))
        self.hosts[one] = host(self.name("host"))
        self.stores.do(lambda store: store.register(self.hosts[one]))

    @rule(one=HOSTS, seconds=st.integers(0, 100))
    def tend(self, one: int, seconds: int) -> None:
        double, real = self.stores.do(lambda store: store.tend(self.hosts[one], START + seconds, 3_600.0))
        assert double == real

    # -- owners, and those who still take themselves for owners -----------------------------------------------

    @precondition(lambda self: self.pairs)
    @rule(place=PLACES)
    def look(self, place: int) -> None:
        pair = self.pair_at(place)
        for owner in pair.owners:
            owner.seen = self.stores.run(owner.store.look(pair.run_id)).seq

    @precondition(lambda self: self.pairs)
    @rule(place=PLACES, count=st.integers(1, 3))
    def append(self, place: int, count: int) -> None:
        pair = self.pair_at(place)
        entries = [said(f"topic {number}", {"n": number}) for number in range(count)]
        self.owns(pair, self.stores.told(pair, lambda owner: owner.append(*entries)))

    @precondition(lambda self: self.pairs)
    @rule(place=PLACES, after=st.none() | st.integers(1, 90), status=st.sampled_from(sorted(WAITING)))
    def park(self, place: int, after: int | None, status: Status) -> None:
        pair = self.pair_at(place)
        wake_at = None if after is None else START + after
        self.owns(pair, self.stores.told(pair, lambda owner: owner.park(wake_at, status)))

    @precondition(lambda self: self.pairs)
    @rule(place=PLACES, ok=st.booleans(), tokens=st.integers(0, 9))
    def finish(self, place: int, ok: bool, tokens: int) -> None:
        pair = self.pair_at(place)
        status = Status.completed if ok else Status.failed
        usage = Usage(steps=1, input_tokens=tokens, micros=tokens * 3)
        self.owns(pair, self.stores.told(pair, lambda owner: owner.finish({"ok": ok}, status, usage)))

    @precondition(lambda self: self.pairs)
    @rule(place=PLACES)
    def give_back(self, place: int) -> None:
        pair = self.pair_at(place)
        self.owns(pair, self.stores.told(pair, lambda owner: owner.append(end=Yield())))

    @precondition(lambda self: self.pairs)
    @rule(place=PLACES, kind=st.sampled_from(["input", "approval"]))
    def ask(self, place: int, kind: str) -> None:
        pair = self.pair_at(place)
        given: dict[str, Json] = {"request_id": f"{pair.run_id}-{self.name('q')}", "run_id": pair.run_id}
        given |= {"root_run_id": pair.run_id, "tenant_id": pair.owners[0].leased.request.tenant_id, "kind": kind}
        given |= {"key": self.name("key"), "prompt": "May I?", "facts": {}, "created_at": START}
        asked = PendingRequest.model_validate(given)
        self.owns(pair, self.stores.told(pair, lambda owner: owner.append(said("asks"), request=asked)))

    @precondition(lambda self: self.pairs)
    @rule(
        place=PLACES,
        count=st.integers(0, 3),
        low=st.integers(0, 2),
        need=st.none() | st.integers(1, 2),
        rest=st.tuples(st.booleans(), st.booleans()),
    )
    def spawn(self, place: int, count: int, low: int, need: int | None, rest: tuple[bool, bool]) -> None:
        pair = self.pair_at(place)
        exhausted, cancel_rest = rest
        first = len(self.children.get((pair.run_id, "g"), []))
        reserved = Usage(input_tokens=7, micros=5)
        tenant = pair.owners[0].leased.request.tenant_id
        made = tuple(
            child_of(pair.run_id, "g", number, reserved, tenant_id=tenant) for number in range(first, first + count)
        )
        spawn = Spawn("g", made, low=low, need=need, exhausted=exhausted, cancel_rest=cancel_rest, at=START)
        answer = self.stores.told(pair, lambda owner: owner.append(said("spawns"), spawn=spawn))
        self.owns(pair, answer)
        if isinstance(answer, Exception):
            return
        there = {record.run_id for record in self.records(self.stores.real)}
        ids = [child.request.run_id for child in made if child.request.run_id in there]
        self.children.setdefault((pair.run_id, "g"), []).extend((run_id, reserved) for run_id in ids)

    def owns(self, pair: Pair, answer: Any) -> None:
        """Who is not the newest owner of a run in progress has been refused, and who is has not."""
        assert isinstance(answer, Fenced) is not self.is_newest(pair), (answer, self.known[pair.run_id])

    # -- what always holds ---------------------------------------------------------------------------------

    def records(self, store: AnyStore) -> list[RunRecord]:
        found: list[RunRecord] = self.stores.run(store.list_runs(RunQuery(limit=MOST)))
        return found

    @invariant()
    def what_always_holds(self) -> None:
        self.statuses_move_along_the_table_and_both_stores_agree()
        self.group_counters_are_a_count_of_the_rows()
        self.no_news_is_lost()

    def statuses_move_along_the_table_and_both_stores_agree(self) -> None:
        real = {record.run_id: record for record in self.records(self.stores.real)}
        double = {record.run_id: record for record in self.records(self.stores.double)}
        assert {name: told(record) for name, record in double.items()} == {n: told(r) for n, r in real.items()}
        for run_id, record in real.items():
            before = self.known.get(run_id)
            if before is None:
                continue
            assert record.status is before.status or record.status in TRANSITIONS[before.status], (before, record)
            assert record.epoch >= before.epoch and record.position >= before.position
        self.known = real

    def group_counters_are_a_count_of_the_rows(self) -> None:
        for (parent, key), made in self.children.items():
            rows = [self.known[run_id] for run_id, _ in made]
            held = [reserved for run_id, reserved in made if not self.known[run_id].status.terminal]
            groups = [self.stores.run(store.look(parent)).groups[key] for store in self.stores.both]
            assert groups[0] == groups[1]
            group = groups[0]
            assert (group.total, group.pending, group.ok, group.failed, group.used) == recount(group, rows)
            assert group.reserved == sum(held, NOTHING)
            assert min(group.reserved.model_dump().values()) >= 0 and min(group.used.model_dump().values()) >= 0

    def no_news_is_lost(self) -> None:
        waiting = "('waiting', 'waiting_for_input', 'waiting_for_approval')"
        query = f"SELECT run_id FROM runs WHERE news != seen AND status IN {waiting}"
        unheard = self.stores.run(self.stores.real._read(lambda c: c.execute(query).fetchall()))
        assert unheard == []

    def journals_grow_without_holes(self) -> None:
        for run_id, record in self.known.items():
            mine, real = (self.stores.run(entries_of(store, run_id)) for store in self.stores.both)
            assert mine == real
            assert len(real) == record.position


def told(record: RunRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in SEEN_FIELDS}


@pytest.mark.promise("A8")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", REAL)
def test_lives(kind: str, places: Places) -> None:
    """Walks of up to 40 operations."""
    walks = settings(
        max_examples=40 if kind == "sqlite" else 15,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        print_blob=True,
    )
    run_state_machine_as_test(lambda: Lives(places, kind), settings=walks)


@pytest.mark.promise("A9")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_retry_lets_go_of_a_run_that_was_held_when_it_failed(kind: str, places: Places) -> None:
    with places.cleared(kind) as place:
        async with opened(place) as store:
            await store.register(host())
            await store.submit([new_run("top")])
            owner = await own(store, "top")
            assert await store.hold("top", True) == 1
            seq = (await store.look("top")).seq
            assert await store.hold("top", True) == 0
            assert (await store.look("top")).seq == seq, "what changes nothing is no news"
            await owner.finish(status=Status.failed)
            await store.retry("top", Retry(by="ben", at=START))
            assert not (await store.get("top")).held
            assert (await own(store, "top")).leased.epoch > owner.leased.epoch
