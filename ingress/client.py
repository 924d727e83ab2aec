"""The client: submit, watch, answer and ask, from Python and from the command line alike.

Talks to the store for everything about runs and to the runtime only where a process is needed: hosting and
the trace tables. Knows Ray only through `actors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from retinue.host import clock
from retinue.host.answers import output_of
from retinue.host.composition import Project, load_project, open_traces
from retinue.host.projecting import catch_up
from retinue.host.settings import Settings
from retinue.ingress.approving import arguments_of, check_edit, check_memory
from retinue.ingress.events import RunEvent
from retinue.ingress.jobrows import JobReading
from retinue.ingress.steering import Forked, Retaking, new_run, plan_fork, shared_steps
from retinue.ingress.versions import version_of
from retinue.ingress.waiting import Endings
from retinue.runs.accounts import shared_budget
from retinue.runs.batch import JOB, BatchJob, Parts
from retinue.runs.contracts import Branch, Budget, Json, PendingRequest, RunRequest
from retinue.runs.definitions import AgentSpec, Definition, parse_as
from retinue.runs.effects.rolling import is_shadow
from retinue.runs.errors import RunCanceled, RunFailed
from retinue.runs.forking import START, Given
from retinue.runs.joins import seconds
from retinue.runs.journal import Accepted
from retinue.runs.messages import ModelRequest
from retinue.runs.ownership import NewRun
from retinue.runs.rollouts import Table
from retinue.runs.sources import Source
from retinue.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from retinue.actors.runtime import Attachment

Ask = Callable[[str, float, int | None], Awaitable["pa.Table"]]


@dataclass(frozen=True, slots=True)
class Submission:
    """What may be said of a run besides target and input; None leaves it to the configuration.

    Of a tenant's runs those of the highest `priority` begin first; `queue` is one of `limits:` (None: the
    definition's); `deadline` is a time span from now (seconds, or text such as `10m`) after which it fails; `route` is
    the way it came in, which rules may ask for.
    """

    tenant: str | None = None
    principal: str | None = None
    model: str | None = None
    budget: Budget | None = None
    idempotency_key: str | None = None
    input_id: str | None = None
    session_id: str | None = None
    stream: bool = False
    priority: int = 0
    queue: str | None = None
    deadline: float | str | timedelta | None = None
    route: str = "api"


class Client(JobReading):
    """Made by `connect`: `Controls`, the rows of jobs, and what needs a project or a process that runs runs.

    All methods may be called from one event loop; errors are RetinueError.
    """

    def __init__(self, settings: Settings, store: Store, pool: str = "runs", ask: Ask | None = None) -> None:
        super().__init__(settings, store)
        self._pool = pool
        self._ask = ask
        self._endings = Endings(store)

    async def close(self) -> None:
        """Stop waiting for anything; `connect` does it."""
        await self._endings.close()

    @cached_property
    def project(self) -> Project:
        """The project's definitions, tools and policy, loaded when first needed."""
        return load_project(self.settings)

    def use(self, attachment: Attachment) -> None:
        """Ask this runtime from now on, if it keeps traces."""
        if self.settings.telemetry.emit_structured_events:
            self._ask = attachment.query

    # -- runs --------------------------------------------------------------------------------------------

    async def submit(self, target: str | Definition, input: Json, **options: Any) -> RunHandle:
        """Accept a run, durably; returns a handle at once. Options: the fields of `Submission`.

        `name@version` names one of the versions that stand side by side; without one the rollouts say which it is.

        Raises UnknownName for the target, the model or a tool, InvalidInput for the input.
        """
        said = Submission(**options)
        request = await self._request(target if isinstance(target, str) else target.name, said)
        definition = self.project.registry.get(request.target, request.target_version)
        self._check(definition, input, said.model)
        [record] = await self._store.submit([NewRun(request, input, clock.now_ns())])
        return RunHandle(self, record.run_id, definition)

    async def batch(
        self,
        target: str,
        source: Source,
        *,
        window: int,
        idempotency_key: str | None = None,
        parts: Parts | None = None,
        of: str | None = None,
        **options: Any,
    ) -> RunHandle:
        """Accept a job: `target` for every row, at most `window` at a time. The key finds it again on resume.

        `budget` among the options is that of the whole job; its money is shared by the rows. With `parts` it is a job
        over many files, `window` is that of each, and the hosts write the rows; `of` names an earlier one whose rows
        are written again, and nothing is run.
        """
        definition = self.project.registry.get(target)
        said = Submission(idempotency_key=idempotency_key, **options)
        self._check_model(definition, said.model)
        job = BatchJob(target=definition.name, source=source, window=window, parts=parts, of=of)
        request = await self._request(JOB, said)
        given = job.model_dump(mode="json", exclude_none=True)
        [record] = await self._store.submit([NewRun(request, given, clock.now_ns())])
        return RunHandle(self, record.run_id, self.project.registry.get(JOB))

    async def wait(self, run_id: str, timeout: float | None = None) -> Branch:
        """The result of a run as a value, when it has ended. TimeoutError after `timeout` seconds."""
        found = (await self.get(run_id)).run_id
        async with asyncio.timeout(timeout):
            await self._endings.wait(found)
        result = await self._store.result(found)
        assert result is not None, f"run {found} has ended but has no result"
        return result

    async def approve(
        self, request_id: str, by: str | None = None, arguments: dict[str, Json] | None = None
    ) -> PendingRequest:
        """See Controls; changed arguments are checked against the tool's schema besides: PermanentError."""
        if arguments is not None:
            request = await self._store.request(request_id)
            check_edit(request, arguments)
            asked = await arguments_of(self._store, request)
            if not check_memory(request, {**asked, **arguments}):
                self.project.gateway.prepare(str(request.facts["capability"]), {**asked, **arguments})
        return await super().approve(request_id, by, arguments)

    # -- steering ------------------------------------------------------------------------------------------

    async def migrate(self, run_id: str, *, budget: Budget | None = None, deadline: float | None = None) -> Retaking:
        """`retry` with the code of now, from the newest checkpoint on; what it asks for as before is not done again.

        UnknownName when the project has no such definition any more.
        """
        registry = self.project.registry
        record = await self.get(run_id)
        versions = {name: registry.get(name).version for name in (*registry.names(), JOB)}
        versions[record.target] = registry.get(record.target, await self._begun_with(record.run_id)).version
        return await self.retry(run_id, budget=budget, deadline=deadline, versions=versions)

    async def fork(
        self, run_id: str, at: str, given: Given | None = None, *, pinned: bool = False, budget: Budget | None = None
    ) -> Forked:
        """Accept a run that shares another's past up to a step (`start`, `checkpoint:N`, a step's key or part of it).

        `given` replaces the step's outcome, the checkpoint's state or the input. The code is that of now unless the
        fork is `pinned` to the version of its original. UnknownName names close steps; InvalidInput.
        """
        record = await self.get(run_id)
        plan = await plan_fork(self._store, record, at, given)
        request = plan.accepted.request
        definition = self.project.registry.get(request.target, plan.version)
        if plan.made.at == START:
            self._check(definition, plan.made.input, request.model)
        version = plan.version if pinned else definition.version
        limits = (budget or Budget()).within(request.budget)
        new = new_run(plan, record, target_version=version, pool=self._pool_of(definition), budget=limits)
        await self._store.submit([new])
        return Forked(
            run_id=new.request.run_id,
            original=record.run_id,
            at=plan.made.at,
            shared=shared_steps(plan),
            given=given is not None,
            repeats=plan.repeats,
            version=version,
        )

    async def _begun_with(self, run_id: str) -> str | None:
        """The version that a run was accepted with."""
        async for frame in self._store.read(run_id):
            first = frame.entries[0]
            return first.request.target_version if isinstance(first, Accepted) else None
        return None

    # -- traces ------------------------------------------------------------------------------------------

    async def query(self, sql: str, timeout: float = 30.0, rows: int | None = None) -> pa.Table:
        """Ask the trace tables, for at most so many rows; through the runtime while one lives. InvalidInput for bad
        SQL."""
        if self._ask is not None:
            return await self._ask(sql, timeout, rows)
        traces = open_traces(self.settings, self._store)
        try:
            await traces.open()
            await catch_up(traces)
            return await traces.query(sql, timeout, rows)
        finally:
            await traces.close()

    # -- inside ------------------------------------------------------------------------------------------

    def _check(self, definition: Definition, input: Json, model: str | None) -> None:
        if definition.input is not None:
            parse_as(definition.input, input, f"input of {definition.name}")
        self._check_model(definition, model)

    def _check_model(self, definition: Definition, model: str | None) -> None:
        """Say now what would fail every run: a model or a tool that does not exist."""
        names = {model} if model else {self.settings.default_model}
        if isinstance(definition, AgentSpec):
            names = {model or definition.model or self.settings.default_model}
            for tool in definition.tool_names:
                self.project.gateway.capability(tool)
        for name in names:
            self.project.models.check(name)
            self.project.models.profile(ModelRequest(model=name, messages=()))

    async def _request(self, target: str, said: Submission) -> RunRequest:
        run_id, tenant = clock.new_run_id(), said.tenant or self.settings.tenant
        table = Table(await self._store.rollouts.listed())
        definition = version_of(self.project.registry, table, target, (tenant, run_id))
        return RunRequest(
            run_id=run_id,
            trace_id=clock.new_trace_id(),
            span_id=clock.new_span_id(),
            tenant_id=tenant,
            principal_id=said.principal or self.settings.principal,
            route="stream" if said.stream else said.route,
            kind=definition.kind,
            target=definition.name,
            target_version=definition.version,
            root_run_id=run_id,
            session_id=said.session_id,
            idempotency_key=said.idempotency_key,
            input_id=said.input_id,
            model=said.model,
            pool=self._pool_of(definition),
            queue=definition.queue if said.queue is None else said.queue,
            priority=said.priority,
            deadline=None if said.deadline is None else clock.now_ns() + int(seconds(said.deadline) * 1e9),
            budget=self._budget(definition, said),
            effect_scope=run_id,
            shadow=is_shadow(table, definition, above=False),
        )

    def _pool_of(self, definition: Definition) -> str:
        """Where the run is queued: this process hosts none that needs what only a pool of its own has."""
        return self.project.registry.pool_of(definition.name) or self._pool

    def _budget(self, definition: Definition, said: Submission) -> Budget:
        """What was said, then the definition's limits, then the configuration's; a job has only what was said.

        Money without any of these is a share of the tenant's, where that has a limit.
        """
        own = (said.budget or Budget()).within(definition.budget)
        if definition.name != JOB:
            hops = self.settings.max_tool_hops
            limits = self.settings.budget
            own = own.within(limits if hops is None else limits.model_copy(update={"hops": hops}))
        return shared_budget(own, self.settings.limits.of_tenant(said.tenant or self.settings.tenant))


class RunHandle:
    """A run that was accepted."""

    def __init__(self, client: Client, run_id: str, definition: Definition) -> None:
        self._client = client
        self._definition = definition
        self.run_id = run_id

    async def result(self, timeout: float | None = None) -> Any:
        """The output, as its declared type. Raises RunFailed or RunCanceled with the reason."""
        branch = await self._client.wait(self.run_id, timeout)
        if branch.ok:
            return output_of(self._definition, branch)
        if branch.reason == "canceled":
            raise RunCanceled(branch.problem, run_id=self.run_id)
        raise RunFailed(branch.problem, run_id=self.run_id, reason=branch.reason.value)

    def events(self) -> AsyncIterator[RunEvent]:
        """What happens in it, until it has ended."""
        return self._client.events(self.run_id)

    async def cancel(self) -> int:
        """Cancel it and all below it."""
        return await self._client.cancel(self.run_id)
