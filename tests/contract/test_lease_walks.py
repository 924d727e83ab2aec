"""Random interleavings of hosts that lease, die, stop and are taken over: an old owner never writes, no run is lost."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from tests.doubles.places import REAL, Places
from tests.doubles.shapes import START, Owner, entries_of, host, new_run, said

from retinue.runs.contracts import RunRecord, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import Fenced, InvalidInput
from retinue.runs.journal import Record
from retinue.runs.machine import WAITING
from retinue.runs.ownership import HostInfo, Yield

HOSTS = st.integers(0, 2)


class Leases(RuleBasedStateMachine):
    """Three places for hosts; each incarnation may stop in order, or die and be found dead by the others."""

    runs = Bundle("runs")
    owners = Bundle("owners")

    def __init__(self, places: Places, kind: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._leaving = ExitStack()
        self._numbers = itertools.count(1)
        self.store = self._leaving.enter_context(places.cleared(kind)).open()
        self.hosts: list[HostInfo] = []
        self.dead: set[str] = set()
        self.written: dict[str, list[tuple[int, str]]] = {}

    def teardown(self) -> None:
        try:
            self.journals_hold_what_was_acknowledged_and_nothing_else()
        finally:
            self.run(self.store.close())
            self._runner.close()
            self._leaving.close()

    def run(self, work: Any) -> Any:
        async def wait() -> Any:
            return await work

        return self._runner.run(wait())

    def fresh(self) -> HostInfo:
        made = host(f"host-{next(self._numbers)}")
        self.run(self.store.register(made))
        return made

    @initialize()
    def begin(self) -> None:
        self.hosts = [self.fresh() for _ in range(3)]

    @rule(target=runs)
    def submit(self) -> str:
        name = f"run-{next(self._numbers)}"
        self.run(self.store.submit([new_run(name)]))
        self.written[name] = []
        return name

    # -- hosts -------------------------------------------------------------------------------------------

    @rule(target=owners, place=HOSTS, limit=st.integers(1, 3))
    def lease(self, place: int, limit: int) -> Any:
        queued = {record.run_id: record for record in self.records() if record.status is Status.queued}
        leased = self.run(self.store.lease(self.hosts[place], "runs", limit, START))
        free = [record for record in queued.values() if not record.held]
        assert len(leased) == min(limit, len(free))
        for found in leased:
            assert found.epoch == queued[found.request.run_id].epoch + 1
        return multiple(*[Owner(self.store, found) for found in leased])

    @rule(place=HOSTS)
    def stop(self, place: int) -> None:
        """In order: its leases go back at once."""
        self.run(self.store.retire(self.hosts[place].host_id))
        self.hosts[place] = self.fresh()

    @rule(place=HOSTS)
    def die(self, place: int) -> None:
        """Its pid is somebody else's: the proof that the others on its machine look for."""
        name = self.hosts[place].host_id
        query = "UPDATE hosts SET pid_started = pid_started - 3600 WHERE host_id = ?"

        async def forge() -> None:
            await self.store._writer.submit(lambda c: c.execute(query, (name,)).fetchall())

        self.run(forge())
        self.dead.add(name)
        self.hosts[place] = self.fresh()

    @rule(place=HOSTS)
    def tend(self, place: int) -> None:
        self.run(self.store.tend(self.hosts[place], START, 3_600.0))
        owned = {record.host for record in self.rows() if record.status == Status.in_progress}
        assert not owned & self.dead, "the dead own nothing after a round of the duties"

    # -- owners, newest and older --------------------------------------------------------------------------

    @rule(owner=owners, count=st.integers(1, 3))
    def append(self, owner: Owner, count: int) -> None:
        topics = [f"said {next(self._numbers)}" for _ in range(count)]
        if self.told(owner, owner.append(*map(said, topics))):
            self.written[name_of(owner)] += [(owner.leased.epoch, topic) for topic in topics]

    @rule(owner=owners)
    def append_again(self, owner: Owner) -> None:
        """The answer was lost: the same append comes again and counts once."""
        topic = f"said {next(self._numbers)}"
        append = owner.make(said(topic))

        async def send() -> None:
            owner.position = (await self.store.append(append)).position

        if self.told(owner, send()):
            self.written[name_of(owner)].append((owner.leased.epoch, topic))
            self.run(send())

    @rule(owner=owners)
    def park(self, owner: Owner) -> None:
        self.told(owner, owner.park(START + 5))

    @rule(owner=owners)
    def finish(self, owner: Owner) -> None:
        self.told(owner, owner.finish())

    @rule(owner=owners)
    def give_back(self, owner: Owner) -> None:
        self.told(owner, owner.append(end=Yield()))

    @rule(owner=owners)
    def release(self, owner: Owner) -> None:
        """Without a word in the journal; an old owner's release changes nothing."""
        before = self.run(self.store.get(name_of(owner)))
        self.run(self.store.release(owner.leased))
        after = self.run(self.store.get(name_of(owner)))
        if not newest(owner, before):
            assert (after.status, after.epoch) == (before.status, before.epoch)

    @rule(run=runs)
    def wake(self, run: str) -> None:
        if not self.run(self.store.get(run)).status.terminal:
            self.run(self.store.signal(run, "go", None, START))
        else:
            with pytest.raises(InvalidInput):
                self.run(self.store.signal(run, "go", None, START))

    @rule(run=runs, held=st.booleans())
    def hold(self, run: str, held: bool) -> None:
        self.run(self.store.hold(run, held))

    def told(self, owner: Owner, act: Any) -> bool:
        """True when it was applied: exactly when this is the newest owner of a run in progress."""
        before = self.run(self.store.get(name_of(owner)))
        try:
            self.run(act)
        except Fenced:
            assert not newest(owner, before)
            return False
        assert newest(owner, before)
        return True

    # -- what always holds ---------------------------------------------------------------------------------

    def records(self) -> list[RunRecord]:
        found: list[RunRecord] = self.run(self.store.list_runs(RunQuery(limit=10_000)))
        return found

    def rows(self) -> list[Any]:
        columns = "r.run_id, r.status, h.host_id, h.state, r.news, r.seen"
        query = f"SELECT {columns} FROM runs r LEFT JOIN hosts h ON h.num = r.host"
        found = self.run(self.store._read(lambda c: c.execute(query).fetchall()))
        return [Row(*row) for row in found]

    @invariant()
    def every_accepted_run_is_in_exactly_one_place(self) -> None:
        rows = self.rows()
        assert {row.run_id for row in rows} == set(self.written)
        for row in rows:
            owned = row.status == Status.in_progress
            waits = row.status in WAITING
            ended = Status(row.status).terminal
            assert [row.status == Status.queued, owned, waits, ended].count(True) == 1
            if owned:
                assert row.host is not None and row.state == "alive"
            if waits:
                assert row.host is None and row.news == row.seen

    def journals_hold_what_was_acknowledged_and_nothing_else(self) -> None:
        for name, written in self.written.items():
            found = [entry.topic for entry in self.run(entries_of(self.store, name)) if isinstance(entry, Record)]
            assert found == [topic for _, topic in written]
            epochs = [epoch for epoch, _ in written]
            assert epochs == sorted(epochs)


class Row:
    """Where a run stands and who has it."""

    def __init__(self, *values: Any) -> None:
        self.run_id, self.status, self.host, self.state, self.news, self.seen = values


def name_of(owner: Owner) -> str:
    return owner.leased.request.run_id


def newest(owner: Owner, record: RunRecord) -> bool:
    return record.status is Status.in_progress and record.epoch == owner.leased.epoch


@pytest.mark.promise("C3", "C6")
@pytest.mark.rule("R8")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", REAL)
def test_leases(kind: str, places: Places) -> None:
    """Walks of up to 40 operations."""
    walks = settings(
        max_examples=25 if kind == "sqlite" else 12,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        print_blob=True,
    )
    run_state_machine_as_test(lambda: Leases(places, kind), settings=walks)
