"""A random walk of runs that spend a tenant's money: submitted, spawned, ended, failed, canceled, retried, orphaned.

Keeps its own books: what each run itself has paid, and who is open. Knows no test.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from tests.doubles.places import Store
from tests.doubles.shapes import START, Owner, child_of, host, new_run, own, said

from retinue.runs.contracts import MICROS, Budget, Status, StopReason, Usage
from retinue.runs.errors import Fenced, InvalidInput, LimitReached
from retinue.runs.journal import Finished, Outcome
from retinue.runs.ownership import Finish, NewRun, Spawn
from retinue.runs.retries import Retry
from retinue.store.opening import connect

_UNIT = 100_000


@dataclass(slots=True)
class Spender:
    """A run: its limit and what it has paid itself (micro-dollars), and what its owner has heard its children paid."""

    name: str
    parent: str | None
    limit: int
    own: int = 0
    state: str = "open"
    owner: Owner | None = None
    groups: int = 0


class Walk:
    """One step at a time; `paid` is what all runs together have paid, `told` what was done, for a failing test."""

    def __init__(self, store: Store, random: Random) -> None:
        self.store = store
        self.runs: dict[str, Spender] = {}
        self.told: list[str] = []
        self._random = random

    @property
    def paid(self) -> int:
        return sum(run.own for run in self.runs.values())

    async def begin(self) -> None:
        await self.store.register(host())

    async def step(self) -> None:
        """Do something that may be done."""
        doing = self._random.choice(
            [
                self._submit,
                self._submit,
                self._spawn,
                self._spawn,
                self._end,
                self._end,
                self._fail,
                self._cancel,
                self._retry,
                self._die,
            ]
        )
        await doing()

    async def end_all(self) -> None:
        """End what is open, in any order."""
        for name in self._random.sample(sorted(self.runs), len(self.runs)):
            if self.runs[name].state == "open":
                await self._finish(self.runs[name], Status.completed)
        for run in list(self.runs.values()):
            record = await self.store.get(run.name)
            assert record.status.terminal, run

    async def books(self) -> tuple[int, int]:
        """Reserved and spent by the accounts."""
        found = await self.store.accounts.listed()
        return sum(each.reserved for each in found), sum(each.spent for each in found)

    def kept(self) -> int:
        """What runs hold of accounts."""
        query = "SELECT CAST(coalesce(sum(kept_micros), 0) AS bigint) FROM runs WHERE account IS NOT NULL"
        return int(_ask(self.store, query))

    async def _submit(self) -> None:
        name = f"r{len(self.runs)}"
        limit = self._random.randint(0, 60) * _UNIT
        made = new_run(name, budget=Budget(usd=Decimal(limit) / MICROS))
        try:
            await self.store.submit([NewRun(made.request, None, START)])
        except LimitReached:
            self.told.append(f"{name} refused")
            return
        self.told.append(f"submit {name} {limit}")
        self.runs[name] = Spender(name, None, limit)

    def _open(self) -> list[Spender]:
        return [run for run in self.runs.values() if run.state == "open"]

    async def _spawn(self) -> None:
        if not (open_runs := self._open()):
            return
        run = self._random.choice(open_runs)
        if (await self.store.get(run.name)).cancel is not None:
            return  # the store lets it make no more
        owner = await self._owner(run)
        room = run.limit - run.own - await self._below(run)
        count = self._random.randint(1, 3)
        share = max(room, 0) // count // _UNIT * _UNIT
        if share == 0:
            return
        key = f"g{run.groups}"
        run.groups += 1
        root = owner.leased.request.root_run_id
        children = tuple(
            child_of(
                run.name, key, index, Usage(micros=share), root_run_id=root, budget=Budget(usd=Decimal(share) / MICROS)
            )
            for index in range(count)
        )
        await owner.append(said("spawns"), spawn=Spawn(key, children, at=START))
        self.told.append(f"{run.name} spawns {count} of {share}")
        for child in children:
            self.runs[child.request.run_id] = Spender(child.request.run_id, run.name, share)

    async def _end(self) -> None:
        if open_runs := self._open():
            await self._finish(self._random.choice(open_runs), Status.completed)

    async def _fail(self) -> None:
        if open_runs := self._open():
            await self._finish(self._random.choice(open_runs), Status.failed)

    async def _cancel(self) -> None:
        """A run and all below it; what is owned ends by its owner, later."""
        if self._random.random() < 0.5 or not (open_runs := self._open()):
            return
        run = self._random.choice(open_runs)
        await self.store.cancel(run.name, "ana", START)
        self.told.append(f"cancel {run.name}")
        for each in self.runs.values():
            if each.state == "open" and (await self.store.get(each.name)).status is Status.canceled:
                each.state = "canceled"

    async def _retry(self) -> None:
        failed = [run for run in self.runs.values() if run.state == "failed"]
        if not failed:
            return
        run = self._random.choice(failed)
        more = run.limit + self._random.randint(0, 20) * _UNIT
        alone = run.parent is None or self.runs[run.parent].state != "open"
        budget = Budget(usd=Decimal(more) / MICROS) if alone and more else None
        with suppress(InvalidInput):
            queued = await self.store.retry(run.name, Retry("ana", START, budget=budget))
            self.told.append(f"retry {run.name} with {budget and budget.usd}: {queued}")
            for name in queued:
                again = self.runs[name]
                again.state, again.owner = "open", None
                again.limit = await self._limit(again)

    async def _die(self) -> None:
        """An owner dies; another takes its runs."""
        await self.store.retire(self._host)
        self.told.append("the host dies")
        self._host += "x"
        await self.store.register(host(self._host))
        for run in self._open():
            run.owner = None

    _host = "h1"

    async def _owner(self, run: Spender) -> Owner:
        if run.owner is None:
            run.owner = await own(self.store, run.name, host(self._host))
        return run.owner

    async def _limit(self, run: Spender) -> int:
        owner = await self._owner(run)
        limit = owner.leased.request.budget.micros or 0
        for frame in owner.leased.frames:
            for entry in frame.entries:
                if entry.kind == "retried" and entry.amendment.budget is not None:
                    limit = entry.amendment.budget.micros or limit
        return limit

    async def _below(self, run: Spender) -> int:
        groups = (await self.store.look(run.name)).groups.values()
        return sum(group.used.micros + group.reserved.micros for group in groups)

    async def _finish(self, run: Spender, status: Status) -> None:
        owner = await self._owner(run)
        groups: Any = (await self.store.look(run.name)).groups.values()
        used = sum(group.used.micros for group in groups)
        room = max(run.limit - run.own - await self._below(run), 0)
        more = self._random.randint(0, room // _UNIT) * _UNIT
        run.own += more
        paid = Outcome(
            at=START, key=f"{len(self.told)}", effect="model", name="m", activation=0, usage=Usage(micros=more)
        )
        usage = Usage(micros=run.own + used)
        reason = StopReason.success if status is Status.completed else StopReason.tool_failure
        entry = Finished(at=START, status=status, reason=reason, usage=usage)
        try:
            await owner.append(paid, entry, end=Finish(status, reason, usage, below=used))
        except Fenced as error:
            raise AssertionError((run, self.told)) from error
        self.told.append(f"{run.name} {status} {usage.micros}")
        run.state = status.value


def _ask(store: Store, query: str) -> Any:
    """One value, read beside the store."""
    engine: Any = store._engine
    if hasattr(engine, "_peek"):
        connection = connect(engine._folder / "store.db")
        try:
            return connection.execute(query).fetchone()[0]
        finally:
            connection.close()
    return engine.pool.use(lambda raw: raw.execute(query).fetchone()[0])
