"""`retinue batch`: an agent over every row of a file.

Owns the order of things: look at both files, begin or resume the job, write rows as they finish, put them in
order. Knows no store; the job is a run, and what it knows survives this process.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from retinue.host.answers import dollars, row_of
from retinue.host.files import names_many, source_of
from retinue.host.parts import DEAD
from retinue.host.presence import runtime_of
from retinue.host.settings import Settings
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.ingress.exits import Exit
from retinue.ingress.following import is_stuck
from retinue.ingress.inputs import check_input
from retinue.ingress.jobs import JobNote, keep, note_for, settle
from retinue.ingress.outputs import PartialRows, check_output, dead_letters_of, replace_with, write_whole
from retinue.ingress.progress import Progress, ended
from retinue.ingress.render import duration, money, short
from retinue.ingress.shards import check_folder, clear_parts, plan_parts, whole
from retinue.ingress.terminal import Terminal, as_line
from retinue.ingress.verb import Dollars, told_share, verb
from retinue.runs.batch import Parts
from retinue.runs.contracts import Branch, Budget, Json, Status
from retinue.runs.control import JobRow, JobState
from retinue.runs.errors import InvalidInput
from retinue.runs.machine import remedy_of
from retinue.runs.sources import Source
from retinue.store.objects import is_url

_CONCURRENCY = 64
_LOOK = 0.25
_STUCK_AFTER = 2.0
_ROWS = 200


@dataclass(frozen=True, slots=True)
class _Plan:
    """A batch that was looked at and may begin; `standing` is its priority and queue, where they were given.

    With `parts` its rows go to a folder, and `rows` is 0: nobody has counted them.
    """

    settings: Settings
    source: Source
    note: JobNote
    rows: int
    window: int
    local: bool
    standing: dict[str, Any]
    parts: Parts | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """A job that was accepted, and how it stands after the watch: `result` is None when only a person can go on."""

    id: str
    state: JobState
    result: Branch | None
    seconds: float


@verb("batch")
@click.argument("agent")
@click.option("--input", "input_path", required=True, help="JSONL, CSV or Parquet: a file, or files of a shared place.")
@click.option("--output", required=True, help="JSONL, one line a row; or a folder of a shared place.")
@click.option("--format", "form", type=click.Choice(["jsonl", "parquet"]), help="Of the files in that folder. [jsonl]")
@click.option("--id", "id_field", help="The column of the rows' ids. Default: `id` where there is one, else the line.")
@click.option(
    "--concurrency", type=click.IntRange(1, 100_000), default=_CONCURRENCY, show_default=True, help="Rows at a time."
)
@click.option("--workers", type=click.IntRange(1, 10_000), help="WorkerActors of the runtime that is started for it.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N rows.")
@click.option("--max-cost", type=Dollars(), metavar="USD", help="Money for the whole job.")
@click.option("--model", help="The model of every agent in it that names none.")
@click.option("--tenant", help="On whose behalf. Default: the configuration's.")
@click.option("--priority", type=click.IntRange(-1000, 1000), help="Higher begins first, among a tenant's runs. [0]")
@click.option("--queue", help="The queue whose `limits:` the rows keep that their definition gives none.")
@click.option("--resume", is_flag=True, help="Go on with the job of this agent, input and output, if there is one.")
@click.option("--force", is_flag=True, help="Begin anew and replace the output.")
@click.option("--local", is_flag=True, help="In this process, without Ray.")
async def batch_command(terminal: Terminal, agent: str, **options: Any) -> Exit:
    """Run AGENT over every row of a file, or of many.

    Rows are written as they finish; when the job has ended the output holds them in input order. Rows that
    cannot be read go to OUTPUT.dead.jsonl. Ctrl-C stops cleanly; --resume goes on, and no finished row runs again.
    """
    plan = await asyncio.to_thread(_plan, terminal, agent, options)
    joined = await asyncio.to_thread(runtime_of, plan.settings) is not None
    try:
        if plan.note.ended and plan.note.job_id and plan.parts is None:
            async with connect(settings=plan.settings, start=False) as client:
                if not (await client.progress(plan.note.job_id)).pending:
                    return await _collect(terminal, client, plan, plan.note.job_id)
        async with connect(settings=plan.settings, local=plan.local) as client:
            told_share(terminal, plan.settings, options["tenant"], options["max_cost"])
            job_id = await _accept(client, plan)
            collect = _collect if plan.parts is None else _collect_parts
            return await collect(terminal, client, plan, job_id)
    except asyncio.CancelledError:
        terminal.note(_stopped(plan, joined and not plan.local))
        raise


def _plan(terminal: Terminal, agent: str, options: dict[str, Any]) -> _Plan:
    """Everything that can be told before a run starts is told here."""
    settings = terminal.settings()
    if options["workers"]:
        settings = settings.model_copy(
            update={"actors": settings.actors.model_copy(update={"workers": options["workers"]})}
        )
    cost = options["max_cost"]
    source, output, parts = _places(options)
    given = {name: options[name] for name in ("model", "tenant")} | {"max_cost": None if cost is None else str(cost)}
    wanted = note_for(agent, source, output, given | {"parts": parts.format if parts else None})
    note = settle(wanted, settings.data_folder, resume=options["resume"], force=options["force"])
    if parts is None:
        rows = check_input(source, id_given=options["id_field"] is not None).rows
    else:
        rows = 0
        if options["force"]:
            clear_parts(parts.folder)
    standing = {name: options[name] for name in ("priority", "queue") if options[name] is not None}
    return _Plan(settings, source, note, rows, options["concurrency"], options["local"], standing, parts)


def _places(options: dict[str, Any]) -> tuple[Source, Path | str, Parts | None]:
    """The input, the output, and the parts when the output is a folder of a shared place."""
    given, output, id_field = options["input_path"], options["output"], options["id_field"] or "id"
    if is_url(output):
        wish = Source(path=given, format="", id_field=id_field, limit=options["limit"])
        parts = plan_parts(given, output, wish, options["form"] or "jsonl", options["concurrency"])
        check_folder(parts.folder)
        return whole(given, parts), parts.folder, parts
    if options["form"] is not None:
        raise InvalidInput(f"--format is for a folder of a shared place, and output {output} is a file: leave it out")
    if names_many(given):
        raise InvalidInput(
            f"input {given} is many files: --output must name a folder of a shared place, such as s3://bucket/out/, "
            "where each gets a file of its own"
        )
    source = source_of(given, id_field, options["limit"])
    return source, check_output(Path(output), None if is_url(given) else Path(given)), None


async def _accept(client: Client, plan: _Plan) -> str:
    """Submit the job, or find the one that has its key; either way it is noted for the next resume."""
    note = plan.note
    handle = await client.batch(
        note.agent,
        plan.source,
        window=_window(plan),
        idempotency_key=note.key,
        parts=plan.parts,
        model=note.model,
        tenant=note.tenant,
        budget=None if note.max_cost is None else Budget(usd=Decimal(note.max_cost)),
        **plan.standing,
    )
    keep(replace(note, job_id=handle.run_id), plan.settings.data_folder)
    return handle.run_id


def _window(plan: _Plan) -> int:
    """Rows at a time: of the job, or of each of its shards."""
    return plan.window if plan.parts is None else max(1, plan.window // plan.parts.at_once)


async def _collect(terminal: Terminal, client: Client, plan: _Plan, job_id: str) -> Exit:
    """Write rows until the job has ended or only a person can go on, then put the files in their last form."""
    partial = PartialRows(Path(plan.note.output))
    try:
        job = await _watch(terminal, client, plan.rows, (job_id, partial))
    finally:
        partial.close()
    if job.result is None:
        return _tell_asks(terminal, plan, job)
    written = await replace_with(Path(plan.note.output), _lines(client.ordered(job_id)))
    rejected = await _write_dead_letters(client, plan, job_id)
    keep(replace(plan.note, job_id=job_id, ended=True), plan.settings.data_folder)
    return _tell_end(terminal, plan, job, (written, rejected))


async def _collect_parts(terminal: Terminal, client: Client, plan: _Plan, job_id: str) -> Exit:
    """Wait until the shards have written their parts; those of a job that had ended before are written again."""
    had_ended = (await client.get(job_id)).status.terminal
    job = await _watch(terminal, client, plan.rows, (job_id, None))
    if job.result is None:
        return _tell_asks(terminal, plan, job)
    if had_ended and job.result.ok:
        note = plan.note
        again = await client.batch(
            note.agent, plan.source, window=1, idempotency_key=None, parts=plan.parts, of=job_id, tenant=note.tenant
        )
        await again.result()
    keep(replace(plan.note, job_id=job_id, ended=True), plan.settings.data_folder)
    return _tell_end(terminal, plan, job, (job.state.ok + job.state.failed, job.state.rejected))


async def _watch(terminal: Terminal, client: Client, rows: int, place: tuple[str, PartialRows | None]) -> _Job:
    job_id, partial = place
    started, after, quiet_since = time.monotonic(), 0, time.monotonic()
    with Progress(Console(stderr=True), rows, quiet=terminal.as_json) as progress:
        while True:
            result = await _result(client, job_id)
            newest = 0 if partial is None else await _write_new(client, job_id, partial, after)
            state = await client.progress(job_id)
            newest = ended(state) if partial is None else newest
            now = time.monotonic()
            progress.show(state, now)
            if result is not None and not state.pending:
                return _Job(job_id, state, result, now - started)
            if newest > after:
                after, quiet_since = newest, now
            elif now - quiet_since > _STUCK_AFTER:
                quiet_since = now
                if await is_stuck(client, job_id):
                    return _Job(job_id, state, None, now - started)


async def _result(client: Client, job_id: str) -> Branch | None:
    """The job's result if it ends within a moment; a job that has ended may have rows in progress again."""
    try:
        result = await client.wait(job_id, _LOOK)
    except TimeoutError:
        return None
    if (await client.progress(job_id)).pending:
        await asyncio.sleep(_LOOK)
    return result


async def _write_new(client: Client, job_id: str, partial: PartialRows, after: int) -> int:
    """Write the rows that ended since; returns the newest one's number."""
    page: list[JobRow] = []
    async for row in client.results(job_id, after):
        page.append(row)
        if len(page) >= _ROWS:
            partial.add(map(row_of, page))
            after = page[-1].seq
            page.clear()
    if page:
        partial.add(map(row_of, page))
        after = page[-1].seq
    return after


async def _lines(rows: AsyncIterator[JobRow]) -> AsyncIterator[dict[str, Json]]:
    async for row in rows:
        yield row_of(row)


async def _write_dead_letters(client: Client, plan: _Plan, job_id: str) -> int:
    path = dead_letters_of(Path(plan.note.output))
    letters = await client.dead_letters(job_id)
    if letters:
        lines = [{"line": one.line, "reason": one.reason, "message": one.message} for one in letters]
        await asyncio.to_thread(write_whole, path, [as_line(line) + "\n" for line in lines])
    else:
        path.unlink(missing_ok=True)
    return len(letters)


def _tell_end(terminal: Terminal, plan: _Plan, job: _Job, counts: tuple[int, int]) -> Exit:
    assert job.result is not None
    written, rejected = counts
    result, state = job.result, job.state
    dead = _dead_of(plan) if rejected else None
    terminal.give(_facts(plan, job) | {"written": written, "dead_letters": dead})
    lines = [
        f"{ended(state):,} rows in {duration(job.seconds)}: {state.ok:,} ok, {state.failed:,} failed, "
        f"{rejected:,} not readable · {money(state.cost_micros)} · {plan.note.output}"
    ]
    if dead:
        lines.append(f"rows that could not be read: {dead}")
    if not result.ok:
        why = f": {result.error.message}" if result.error else ""
        lines.append(f"the job {result.status.value} ({result.reason.value}){why}")
        if plan.parts is None:
            lines.append(f"{plan.rows - ended(state):,} rows were not run")
    if helps := remedy_of(result.reason, result.error.code if result.error else None):
        lines.append(f"what helps: {helps}")
    lines.append(f"job {short(job.id)}: `retinue inspect {short(job.id)}`")
    terminal.note("\n".join(lines))
    if result.status is Status.canceled:
        return Exit.canceled
    return Exit.done if result.ok and not state.failed and not rejected else Exit.failed


def _dead_of(plan: _Plan) -> str:
    """Where the rows stand that could not be read."""
    if plan.parts is not None:
        return f"{plan.parts.folder}part-*.{plan.parts.format}{DEAD}"
    return str(dead_letters_of(Path(plan.note.output)))


def _tell_asks(terminal: Terminal, plan: _Plan, job: _Job) -> Exit:
    terminal.give(_facts(plan, job))
    waiting = job.state.waiting
    cause = (
        f"answers {waiting:,} requests: `retinue inbox`" if waiting else f"lets it go: `retinue resume {short(job.id)}`"
    )
    terminal.note(
        f"{ended(job.state):,} of {plan.rows or job.state.total:,} rows are done, and nothing else can go on before a "
        f"person {cause}\n"
        f"then {_again(plan)}"
    )
    return Exit.asks


def _facts(plan: _Plan, job: _Job) -> dict[str, Json]:
    state = job.state
    return {
        "job_id": job.id,
        "status": job.result.status.value if job.result else "waiting_for_person",
        "stop_reason": job.result.reason.value if job.result else None,
        "error": job.result.error.message if job.result and job.result.error else None,
        "rows": plan.rows or state.total + state.rejected,
        "ok": state.ok,
        "failed": state.failed,
        "rejected": state.rejected,
        "waiting": state.waiting,
        "cost_usd": dollars(state.cost_micros),
        "seconds": round(job.seconds, 3),
        "output": plan.note.output,
    }


def _stopped(plan: _Plan, goes_on: bool) -> str:
    """What a Ctrl-C left behind, and how to go on."""
    if goes_on:
        return (
            f"stopped watching; the job goes on in the runtime. Collect it with {_again(plan)}\n"
            "`retinue ps` lists it, `retinue cancel` ends it"
        )
    kept = plan.note.output if plan.parts is None else "the store"
    return f"stopped; finished rows are kept in {kept}. Go on with {_again(plan)}"


def _again(plan: _Plan) -> str:
    """The command that goes on, as it must be typed."""
    note = plan.note
    words = ["retinue", "batch", note.agent, "--input", note.input, "--output", note.output]
    named = {"--limit": note.limit, "--max-cost": note.max_cost, "--model": note.model, "--tenant": note.tenant}
    named["--format"] = None if note.parts == "jsonl" else note.parts
    named["--id"] = None if note.id_field == "id" else note.id_field
    named["--concurrency"] = None if plan.window == _CONCURRENCY else plan.window
    for name, value in named.items():
        words += [] if value is None else [name, str(value)]
    return f"`{shlex.join([*words, *(['--local'] if plan.local else []), '--resume'])}`"
