"""A world to run in: an engine with a store, the real gate, gateway and scripted model, and a clock by hand.

No host loop and no waiting: runs are leased and driven until nothing is queued, and time moves when a test moves
it. A crash drops every execution where it stands and gives its leases to a new incarnation.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.doubles.places import Place
from tests.doubles.shapes import START, AnyStore, entries_of, host, opened

from retinue.host.model_endpoint import ModelEndpoint
from retinue.host.rows import RowReader
from retinue.inference.catalog import models_from
from retinue.memory.packets import PacketBuilder
from retinue.policy.load import load_gate
from retinue.runs import ending
from retinue.runs.batch import batch
from retinue.runs.contracts import Branch, Budget, Json, PendingRequest, RunRequest, Status
from retinue.runs.control import RunQuery
from retinue.runs.definitions import Definition
from retinue.runs.errors import StoreError
from retinue.runs.execution import Execution
from retinue.runs.forking import Given, Original, fork
from retinue.runs.journal import Accepted, AnyEntry, Intent, Outcome
from retinue.runs.ownership import NewRun
from retinue.runs.ports import Defaults, RetryPolicy, Services
from retinue.runs.registry import Registry
from retinue.runs.retries import Retry
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import NativeTool

ALLOW_ALL = '@id("all") permit (principal, action, resource);'
SECOND = 1_000_000_000
_BOUND = 60.0


class Clock:
    """Time in Unix ns; it moves when it is told to, and by `step` ns whenever somebody looks."""

    def __init__(self, now: int = START) -> None:
        self.now = now
        self.step = 1_000

    def __call__(self) -> int:
        self.now += self.step
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += int(seconds * SECOND)


class World:
    """An engine over one store. `run` is the usual way in; the rest is for tests of what lies between."""

    def __init__(self, store: AnyStore, definitions: Sequence[Definition], folder: Path, policy: str) -> None:
        rules = folder / "policy"
        rules.mkdir(exist_ok=True)
        (rules / "rules.cedar").write_text(policy)
        self.folder = folder
        self.store = store
        self.clock = Clock()
        self.deltas: list[tuple[str, str, int, str]] = []
        self.registry = Registry([], [*definitions, batch])
        gate = load_gate(rules)
        tools = [tool for tool in self.registry.tools.values() if isinstance(tool, NativeTool)]
        self.services = Services(
            journal=store,
            models=models_from(root=folder),
            gateway=CapabilityGateway(Catalog(tools), gate, clock=self.clock),
            gate=gate,
            contexts=PacketBuilder(),
            registry=self.registry,
            sources=RowReader(),
            breakers=store.breakers,
            memories=store.memories,
            now_ns=self.clock,
            deltas=lambda *piece: self.deltas.append(piece),
            random=random.Random(7),
            retry=RetryPolicy(attempts=3, base=0.5, cap=60.0, in_memory=0.0),
            defaults=Defaults(model="scripted:model.jsonl"),
            endpoint=ModelEndpoint(),
        )
        self.pools: tuple[str, ...] = ("runs", "workers")
        self.active: dict[str, Execution] = {}
        self.failures: list[BaseException] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._names = itertools.count(1)
        self._incarnations = itertools.count(1)
        self.host = host("host-0")

    async def begin(self) -> None:
        """Register the first incarnation."""
        await self.store.register(self.host)

    def use(self, **services: Any) -> None:
        """Change services, or fields of the defaults."""
        known = {name: value for name, value in services.items() if name in Services.__dataclass_fields__}
        rest = {name: value for name, value in services.items() if name not in known}
        self.services = replace(self.services, **known)
        self.services = replace(self.services, defaults=replace(self.services.defaults, **rest))

    def redefine(self, *definitions: Definition) -> None:
        """The project's code has changed: these are its definitions now."""
        self.registry = Registry([], [*definitions, batch])
        self.use(registry=self.registry)

    async def submit(self, target: Definition | str, input: Json = None, **fields: Any) -> str:
        """Accept a run; its id."""
        definition = self.registry.get(target if isinstance(target, str) else target.name)
        run_id = f"run-{next(self._names):04d}"
        budget = fields.pop("budget", Budget()).within(definition.budget).within(self.services.defaults.budget)
        given: dict[str, Any] = {
            "run_id": run_id,
            "trace_id": "7" * 32,
            "span_id": "5" * 16,
            "tenant_id": "acme",
            "principal_id": "ana",
            "kind": definition.kind,
            "target": definition.name,
            "target_version": definition.version,
            "root_run_id": run_id,
            "effect_scope": run_id,
            "budget": budget,
        }
        [record] = await self.store.submit([NewRun(RunRequest(**given | fields), input, self.clock())])
        return record.run_id

    async def lease(self) -> int:
        """Take what is queued and begin to drive it; how many."""
        found = 0
        for pool in self.pools:
            for leased in await self.store.lease(self.host, pool, 1_000, self.clock()):
                found += 1
                execution = Execution(leased, self.services, self.host)
                run_id = leased.request.run_id
                self.active[run_id] = execution
                self._tasks[run_id] = asyncio.create_task(self._carry(run_id, execution))
        return found

    async def settle(self) -> None:
        """Drive until every run has parked or ended."""
        async with asyncio.timeout(_BOUND):
            busy = True
            while await self.lease() or self._tasks or busy:  # what ended while it looked may have woken another
                busy = bool(self._tasks)
                await self.pass_news()
                if self._tasks:
                    await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED, timeout=0.05)

    async def pass_news(self) -> None:
        """Tell executions what arrived, as a host does."""
        for run_id, news in (await self.store.news(self.host.host_id)).items():
            if run_id in self.active:
                self.active[run_id].take(news)

    async def finish(self, run_id: str, most_waits: int = 200) -> Branch:
        """Drive and let time pass until the run has ended; its result."""
        for _ in range(most_waits):
            await self.settle()
            result = await self.store.result(run_id)
            if result is not None:
                return result
            if not await self.wait_out():
                record = await self.store.get(run_id)
                raise AssertionError(f"{run_id} is {record.status} ({record.reason}) and nothing will wake it")
        raise AssertionError(f"{run_id} did not end within {most_waits} waits")

    async def asked(self, run_id: str) -> PendingRequest:
        """Drive until everything rests; the open question of a run."""
        await self.settle()
        [request] = [request for request in await self.store.requests() if request.run_id == run_id]
        return request

    async def answer(self, run_id: str, value: Json, by: str = "ben") -> None:
        """Answer the open question of a run."""
        await self.store.resolve((await self.asked(run_id)).request_id, "answered", by, self.clock(), value)

    async def retry(self, run_id: str, **wanted: Any) -> list[str]:
        """Queue a failed run again."""
        return await self.store.retry(run_id, Retry(by="ben", at=self.clock(), **wanted))

    async def fork(self, run_id: str, at: str, given: Given | None = None) -> str:
        """Accept a fork of a run, with the step's outcome if one is given; its id."""
        entries = await self.entries(run_id)
        accepted, record = entries[0], await self.store.get(run_id)
        assert isinstance(accepted, Accepted)
        made = fork(Original(entries, accepted.content, record.started_at or 0), at, given)
        fork_id = f"fork-{next(self._names):04d}"
        fields = {
            "run_id": fork_id,
            "root_run_id": fork_id,
            "effect_scope": fork_id,
            "forked_from": f"{run_id}@{made.at}",
            "repeats": made.repeats,
            "seed": accepted.request.seed or run_id,
        }
        request = accepted.request.model_copy(update=fields)
        await self.store.submit([NewRun(request, made.input, self.clock(), past=made.past)])
        return fork_id

    async def run(self, target: Definition | str, input: Json = None, **fields: Any) -> Branch:
        """Submit, then drive to the end."""
        return await self.finish(await self.submit(target, input, **fields))

    async def wait_out(self) -> bool:
        """Let time pass until the next run is due; False when none is."""
        moments = [r.wake_at for r in await self.store.list_runs(RunQuery(limit=10_000)) if r.wake_at is not None]
        if not moments:
            return False
        self.clock.now = max(self.clock.now, min(moments))
        await self.store.tend(self.host, self.clock.now, 3_600.0)
        return True

    async def crash(self) -> None:
        """Every execution dies where it stands; its leases go back, and a new incarnation is ready."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.active.clear()
        self._tasks.clear()
        await self.store.retire(self.host.host_id)
        self.host = host(f"host-{next(self._incarnations)}")
        await self.store.register(self.host)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Drive until something holds, a few loop turns at a time."""
        async with asyncio.timeout(_BOUND):
            while not condition():
                await self.lease()
                await self.pass_news()
                await asyncio.sleep(0.001)

    async def until_journaled(self, run_id: str, condition: Callable[[list[AnyEntry]], bool]) -> list[AnyEntry]:
        """Drive until the journal of a run, as it is stored, says something; the journal."""
        async with asyncio.timeout(_BOUND):
            while not condition(entries := await self.entries(run_id)):
                await self.lease()
                await self.pass_news()
                await asyncio.sleep(0.001)
        return entries

    async def entries(self, run_id: str) -> list[AnyEntry]:
        """The journal of a run."""
        return await entries_of(self.store, run_id)

    async def outcomes(self, run_id: str) -> list[Outcome]:
        """What its effects came to."""
        return [entry for entry in await self.entries(run_id) if isinstance(entry, Outcome)]

    async def intents(self, run_id: str) -> list[Intent]:
        """What it set out to do."""
        return [entry for entry in await self.entries(run_id) if isinstance(entry, Intent)]

    def script(self, *lines: Mapping[str, Json], name: str = "model.jsonl") -> None:
        """Write what the scripted model decides: lines of `match` and `decisions`."""
        (self.folder / name).write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        self.use(models=models_from(root=self.folder))

    def decide(self, *decisions: Mapping[str, Json], **match: Json) -> None:
        """One script line."""
        self.script({"match": match, "decisions": list(decisions)})

    async def _carry(self, run_id: str, execution: Execution) -> None:
        try:
            await execution.drive()
        except StoreError as error:
            self.failures.append(error)
        except Exception as error:  # what a host does with a defect of the engine
            self.failures.append(error)
            await ending.fail(execution, error)
        finally:
            if self.active.get(run_id) is execution:
                del self.active[run_id], self._tasks[run_id]
        if execution.boxes.used and self.services.sandboxes is not None:
            await self.services.sandboxes.release(run_id, execution.boxes.ended)


@asynccontextmanager
async def world(
    kind: str, folder: Path, *definitions: Definition, policy: str = ALLOW_ALL, url: str | None = None
) -> AsyncIterator[World]:
    """A world over a store of a kind (with the URL of its database); executions that are left end with it."""
    async with opened(Place(kind, folder, url)) as store:
        made = World(store, definitions, folder, policy)
        await made.begin()
        try:
            yield made
        finally:
            await made.crash()
            assert made.services.endpoint is not None
            await made.services.endpoint.close()


def calls(name: str, /, **arguments: Json) -> dict[str, Json]:
    """A decision to call one tool."""
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def costs(decision: Mapping[str, Json], usd: str, input_tokens: int = 10, output_tokens: int = 5) -> dict[str, Json]:
    """The decision with a price."""
    usage = {"usd": str(Decimal(usd)), "input_tokens": input_tokens, "output_tokens": output_tokens}
    return {**decision, "usage": usage}


def ended(branch: Branch) -> tuple[Status, str]:
    """How a run ended, in short."""
    return branch.status, branch.reason.value
