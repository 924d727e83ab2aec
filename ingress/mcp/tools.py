"""The tools of the MCP way in: what each takes, what it does, what it gives back. Each is one thing `Client` can do.

Knows rights and runs; knows no wire.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from retinue.ingress.client import Client
from retinue.ingress.mcp.rights import Rights, check_acts, check_resolves, check_seen, refusal, unknown_run
from retinue.ingress.mcp.telling import told_request, told_result, told_run, told_table, told_target
from retinue.runs.contracts import Budget, Json, PendingRequest, RunRecord, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, UnknownName

ROUTE = "mcp"
LONGEST_WAIT = 300.0
_LOOK_FIRST, _LOOK_LATER = 0.05, 0.5
"""Seconds between two looks for questions: often at first, then less and less."""
_MOST_RUNS = 200
_MOST_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Face:
    """Whom the tools serve, and how they reach the project's runs (`client` waits until they can be)."""

    rights: Rights
    client: Callable[[], Awaitable[Client]]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SubmitRun(_Asked):
    """What `submit_run` takes."""

    target: str = Field(description="The agent or workflow; `list_targets` tells which there are.")
    input: Json = Field(default=None, description="Its input: text, or JSON as its input_schema says.")
    model: str | None = Field(default=None, description="The model of every agent in it that names none.")
    session_id: str | None = Field(default=None, description="The session it belongs to.")
    idempotency_key: str | None = Field(
        default=None, min_length=1, description="A second run with the same key is the first one: send it to be safe."
    )
    deadline: float | str | None = Field(default=None, description="It must end within: seconds, or 90s, 10m, 2h.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher begins first among the tenant's runs.")
    queue: str | None = Field(default=None, description="The queue whose limits it keeps; its definition's otherwise.")
    budget: Budget | None = Field(default=None, description="Limits below those of the project: usd, tokens, steps.")


class OneRun(_Asked):
    """What tools about one run take."""

    run_id: str = Field(min_length=1, description="The run's id, or enough of its end.")


class WaitRun(OneRun):
    """What `wait_run` takes."""

    timeout: float = Field(
        default=30.0, ge=0, le=LONGEST_WAIT, description="Seconds to wait at most; ask again to wait longer."
    )


class ListRuns(_Asked):
    """What `list_runs` takes."""

    status: Status | None = Field(default=None, description="Only runs that stand so.")
    parent: str | None = Field(default=None, description="Only the children of this run.")
    children: bool = Field(default=False, description="Also runs that were made by runs.")
    limit: int = Field(default=20, ge=1, le=_MOST_RUNS, description="At most so many, newest first.")


class ListRequests(_Asked):
    """What `list_requests` takes."""

    run_id: str | None = Field(default=None, description="Only what the tree asks that this run stands in.")


class OneRequest(_Asked):
    """What tools about one request take."""

    request_id: str = Field(min_length=1, description="The request, as `list_requests` shows it.")


class DenyRun(OneRequest):
    """What `deny_run` takes."""

    why: str = Field(default="", max_length=4_000, description="Told to the agent that asked.")


class Answer(OneRequest):
    """What `answer` takes."""

    value: Json = Field(default=None, description="The answer: text, or JSON as the request's schema says.")
    decline: bool = Field(default=False, description="Decline instead; only what a server asks can be declined.")


class SignalRun(OneRun):
    """What `signal_run` takes."""

    name: str = Field(min_length=1, description="The event's name.")
    value: Json = Field(default=None, description="The event's value.")


class QueryTraces(_Asked):
    """What `query_traces` takes."""

    sql: str = Field(min_length=1, max_length=100_000, description="One SELECT, DESCRIBE, SUMMARIZE or EXPLAIN.")
    rows: int = Field(default=200, ge=1, le=_MOST_ROWS, description="At most so many rows.")
    timeout: float | None = Field(default=None, gt=0, le=LONGEST_WAIT, description="Seconds; the project's otherwise.")


class ListTargets(_Asked):
    """`list_targets` takes nothing."""


# -- looking -------------------------------------------------------------------------------------------------


async def list_targets(face: Face, asked: ListTargets) -> Json:
    """The agents and workflows that can be submitted, with the schemas of what they take and give."""
    registry = (await face.client()).project.registry
    return {"targets": [told_target(registry.get(name)) for name in registry.names()]}


async def get_run(face: Face, asked: OneRun) -> Json:
    """Where a run stands: its status, its result when it has ended, and what it asks people."""
    client = await face.client()
    return await standing(face, client, await seen(face, client, asked.run_id))


async def wait_run(face: Face, asked: WaitRun) -> Json:
    """Wait until a run has ended, or asks something that you can answer, or the timeout is over."""
    client = await face.client()
    record = await seen(face, client, asked.run_id)
    await until_news(face, client, record, asked.timeout)
    return await standing(face, client, await client.get(record.run_id))


async def list_runs(face: Face, asked: ListRuns) -> Json:
    """The newest runs of your tenant."""
    client = await face.client()
    parent = None if asked.parent is None else (await seen(face, client, asked.parent)).run_id
    query = RunQuery(
        status=asked.status,
        tenant_id=face.rights.tenant,
        parent_run_id=parent,
        roots_only=parent is None and not asked.children,
        limit=asked.limit,
    )
    return {"runs": [told_run(record) for record in await client.runs(query)]}


async def list_requests(face: Face, asked: ListRequests) -> Json:
    """What runs ask: approvals, questions, writes in doubt. `for_you` says whether you can answer, else `why_not`."""
    client = await face.client()
    below = None if asked.run_id is None else (await seen(face, client, asked.run_id)).root_run_id
    found = [one for one in await client.inbox(below) if one.tenant_id == face.rights.tenant]
    shown = found[:_MOST_RUNS]
    return {
        "requests": [told_request(one, refusal(face.rights, one)) for one in shown],
        "more": len(found) - len(shown),
    }


async def query_traces(face: Face, asked: QueryTraces) -> Json:
    """Ask the trace tables one SQL question (DuckDB): runs, steps, model calls, capability calls, policy decisions."""
    client = await face.client()
    seconds = client.settings.traces.query_timeout
    table = await client.query(asked.sql, min(asked.timeout or seconds, seconds), asked.rows)
    return await asyncio.to_thread(told_table, table)


# -- doing ---------------------------------------------------------------------------------------------------


async def submit_run(face: Face, asked: SubmitRun) -> Json:
    """Begin a run of an agent or workflow. It goes on by itself, whatever becomes of this connection; `wait_run` waits
    for its result."""
    client = await face.client()
    return told_run(await client.get(await submit(face, client, asked)))


async def submit(face: Face, client: Client, asked: SubmitRun) -> str:
    """Accept the run, durably; returns its id. UnknownName, InvalidInput."""
    names = client.project.registry.names()
    if asked.target not in names:
        known = ", ".join(names) or "none"
        raise UnknownName(f"there is no agent or workflow {asked.target!r}: there are: {known}")
    options = asked.model_dump(exclude={"target", "input", "budget"}, exclude_none=True)
    handle = await client.submit(
        asked.target,
        asked.input,
        tenant=face.rights.tenant,
        principal=face.rights.principal,
        route=ROUTE,
        budget=asked.budget,
        **options,
    )
    return handle.run_id


async def cancel_run(face: Face, asked: OneRun) -> Json:
    """Cancel a run and everything below it."""
    client = await face.client()
    record = await own(face, client, asked.run_id, "cancel")
    count = await client.cancel(record.run_id, face.rights.principal)
    return {"run_id": record.run_id, "canceled": count}


async def signal_run(face: Face, asked: SignalRun) -> Json:
    """Send an event to a run. One that does not wait for it yet keeps it."""
    client = await face.client()
    record = await own(face, client, asked.run_id, "signal")
    await client.signal(record.run_id, asked.name, asked.value)
    return {"run_id": record.run_id, "event": asked.name}


async def approve_run(face: Face, asked: OneRequest) -> Json:
    """Say yes to an approval that another principal's run waits for."""
    client = await face.client()
    request = await resolvable(face, client, asked.request_id, "approval")
    return _resolved(await client.approve(request.request_id, face.rights.principal))


async def deny_run(face: Face, asked: DenyRun) -> Json:
    """Say no to an approval that another principal's run waits for."""
    client = await face.client()
    request = await resolvable(face, client, asked.request_id, "approval")
    return _resolved(await client.deny(request.request_id, face.rights.principal, asked.why))


async def answer(face: Face, asked: Answer) -> Json:
    """Answer a question that a run asks."""
    client = await face.client()
    request = await resolvable(face, client, asked.request_id, "input")
    if asked.decline:
        return _resolved(await client.decline(request.request_id, face.rights.principal))
    return _resolved(await client.answer(request.request_id, asked.value, face.rights.principal))


# -- what they share -----------------------------------------------------------------------------------------


async def seen(face: Face, client: Client, given: str) -> RunRecord:
    """A run of the tenant. UnknownName for any other, in the same words."""
    try:
        record = await client.get(given)
    except UnknownName:
        raise unknown_run(given) from None
    check_seen(face.rights, record, given)
    return record


async def own(face: Face, client: Client, given: str, what: str) -> RunRecord:
    """A run that may be acted on. UnknownName, InvalidInput."""
    record = await seen(face, client, given)
    check_acts(face.rights, record, (await client.accepted(record.run_id)).principal_id, what)
    return record


async def resolvable(face: Face, client: Client, request_id: str, kind: Literal["approval", "input"]) -> PendingRequest:
    """An open request of the tenant that these rights can resolve. UnknownName, InvalidInput."""
    for request in await client.inbox():
        if request.request_id == request_id and request.tenant_id == face.rights.tenant:
            if request.kind != kind:
                verb = "approve_run or deny_run" if request.kind == "approval" else "answer"
                raise InvalidInput(f"request {request_id} is an {request.kind}: use {verb}")
            check_resolves(face.rights, request)
            return request
    raise UnknownName(f"there is no open request {request_id!r}: `list_requests` shows those there are")


async def asks(face: Face, client: Client, record: RunRecord) -> list[PendingRequest]:
    """What a run and all below it ask, oldest first."""
    return [] if record.status.terminal else await client.inbox(record.run_id)


async def standing(face: Face, client: Client, record: RunRecord) -> Json:
    """A run, its result if it has ended, and what its tree asks."""
    told = told_run(record)
    if record.status.terminal:
        told |= told_result(await client.wait(record.run_id, LONGEST_WAIT))
    requests = await asks(face, client, record)
    told["requests"] = [told_request(one, refusal(face.rights, one)) for one in requests[:_MOST_RUNS]]
    return told


def for_me(face: Face, requests: list[PendingRequest]) -> list[PendingRequest]:
    """Those that these rights can resolve."""
    return [one for one in requests if refusal(face.rights, one) is None]


async def until_news(face: Face, client: Client, record: RunRecord, timeout: float) -> None:
    """Return when the run has ended, when it asks something that can be answered here, or when the time is over."""
    ending = asyncio.create_task(client.wait(record.run_id))
    until, look = time.monotonic() + timeout, _LOOK_FIRST
    try:
        while not ending.done() and not for_me(face, await asks(face, client, record)):
            left = until - time.monotonic()
            if left <= 0:
                return
            await asyncio.wait({ending}, timeout=min(look, left))
            look = min(look * 1.5, _LOOK_LATER)
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


def _resolved(request: PendingRequest) -> Json:
    return {"request_id": request.request_id, "run_id": request.run_id, "status": request.status}


# -- the table -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as it is offered: its function's docstring is its description. `hints` are MCP's annotations."""

    takes: type[BaseModel]
    does: Callable[[Face, Any], Awaitable[Json]]
    hints: tuple[str, ...] = ()
    right: Literal["approvals", "traces"] | None = None

    @property
    def description(self) -> str:
        """What it does, in a line."""
        return " ".join((self.does.__doc__ or "").split())


OFFERS: dict[str, Offer] = {
    "list_targets": Offer(ListTargets, list_targets, ("read_only",)),
    "submit_run": Offer(SubmitRun, submit_run),
    "get_run": Offer(OneRun, get_run, ("read_only",)),
    "wait_run": Offer(WaitRun, wait_run, ("read_only",)),
    "list_runs": Offer(ListRuns, list_runs, ("read_only",)),
    "list_requests": Offer(ListRequests, list_requests, ("read_only",)),
    "answer": Offer(Answer, answer, ("destructive",)),
    "approve_run": Offer(OneRequest, approve_run, ("destructive",), "approvals"),
    "deny_run": Offer(DenyRun, deny_run, ("destructive",), "approvals"),
    "cancel_run": Offer(OneRun, cancel_run, ("destructive", "idempotent")),
    "signal_run": Offer(SignalRun, signal_run),
    "query_traces": Offer(QueryTraces, query_traces, ("read_only",), "traces"),
}


def offered(rights: Rights) -> dict[str, Offer]:
    """The tools that go with these rights."""
    return {name: one for name, one in OFFERS.items() if one.right is None or getattr(rights, one.right)}
