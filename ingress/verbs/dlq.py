"""`retinue dlq list`, `show`, `redrive`: what was given up, and taking it up again. The store will do, unless it
must host what it queued."""

from __future__ import annotations

import asyncio
import importlib

import click

from retinue.host.presence import runtime_of
from retinue.host.settings import Settings
from retinue.ingress.controls import open_controls
from retinue.ingress.dead import LIMIT, Dead, DeadList
from retinue.ingress.exits import Exit
from retinue.ingress.following import follow, follow_rows
from retinue.ingress.render import columns, counted, moment, short
from retinue.ingress.terminal import Terminal, as_block
from retinue.ingress.verb import verb
from retinue.runs.batch import JOB
from retinue.runs.contracts import RunRecord, Status
from retinue.runs.control import Redriven
from retinue.runs.machine import STATUS_OF

_FAILURES = sorted(reason.value for reason, status in STATUS_OF.items() if status is Status.failed)
_HEAD = ("ID", "KIND", "AGENT", "INPUT", "JOB", "REASON", "TRIES", "GIVEN UP", "MESSAGE")
_NAMED = 20


@click.group("dlq")
def dlq_command() -> None:
    """Dead letters: inputs that could not become a run, and runs that failed for good. Each command takes --project
    and --json."""


@verb("list")
@click.option("--job", metavar="RUN", help="Only those of this job.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=LIMIT, show_default=True, help="At most so many.")
async def list_command(terminal: Terminal, job: str | None, limit: int) -> Exit:
    """List dead letters, newest first, and what helps."""
    async with open_controls(terminal.settings()) as client:
        found = await client.dead(job, limit)
    terminal.give(found, _list_text(found))
    return Exit.done


@verb("show")
@click.argument("id")
async def show_command(terminal: Terminal, id: str) -> Exit:
    """Show the dead letter ID with its input."""
    async with open_controls(terminal.settings()) as client:
        one = await client.dead_letter(id)
    facts = one.model_dump(exclude={"input", "at"}, exclude_none=True) | {"given up": moment(one.at)}
    lines = [f"{name:<12}{value}" for name, value in facts.items()]
    terminal.give(one, "\n".join([*lines, f"{'input':<12}{as_block(one.input)}"]))
    return Exit.done


@verb("redrive")
@click.argument("run")
@click.option("--reason", type=click.Choice(_FAILURES), metavar="REASON", help="Only rows that failed with it.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N of them.")
@click.option("--background", is_flag=True, help="Only queue them, also when no runtime lives.")
async def redrive_command(
    terminal: Terminal, run: str, reason: str | None, limit: int | None, background: bool
) -> Exit:
    """Queue the failed rows of the job RUN again, or the one failed RUN: each goes on in place, with its id and its
    idempotency keys. Where no runtime lives, this command hosts them until they have ended."""
    settings = terminal.settings()
    async with open_controls(settings) as client:
        done = await client.redrive(run, reason=reason, limit=limit)
        record = await client.get(run)
    alone = await asyncio.to_thread(runtime_of, settings) is None
    for run_id, why in done.refused[:_NAMED]:
        terminal.note(f"left as it is: {short(run_id)}: {why}")
    terminal.note(_queued_text(done))
    hosts = alone and not background and bool(done.queued)
    code = await _host(terminal, settings, record) if hosts else Exit.failed if done.refused else Exit.done
    rows, name = record.target == JOB, short(record.run_id)
    if not hosts:
        terminal.give({"run_id": record.run_id, "queued": done.queued, "refused": done.refused})
        if done.queued:
            carries = f"no runtime lives: `retinue wait {name}` carries" if alone else "the runtime carries"
            terminal.note(f"{carries} {'it' if len(done.queued) == 1 else 'them'} on")
    if rows and done.queued:
        terminal.note("then `retinue batch ... --resume`, with what the job began with, writes its output again")
    return code


async def _host(terminal: Terminal, settings: Settings, record: RunRecord) -> Exit:
    """Carry on in this process what was queued, until it has ended or asks."""
    # What hosts runs takes a second to import; only here it is needed.
    connect = importlib.import_module("retinue.ingress.connecting").connect
    async with connect(settings=settings, local=True) as client:
        if record.status.terminal:
            return await follow_rows(terminal, client, record.run_id)
        return await follow(terminal, client, record.run_id)


def _queued_text(done: Redriven) -> str:
    left = len(done.refused)
    more = f", {left:,} left as they are" if left else ""
    return f"{counted(len(done.queued), 'run')} queued again{more}"


def _list_text(found: DeadList) -> str:
    if not found.letters:
        return "no dead letters"
    lines = [columns(_HEAD, [_row(one) for one in found.letters])]
    if found.more:
        lines.append(f"… and {found.more:,} more: --limit shows more of them")
    helps = {(one.reason, one.helps): None for one in found.letters}
    lines += ["", *(f"{reason}: {text}" for reason, text in helps)]
    job = next((one.job for one in found.letters if one.kind == "run" and one.job), None)
    if job is not None:
        lines.append(f"when the cause is gone: `retinue dlq redrive {short(job)}` takes the failed rows up again")
    return "\n".join(lines)


def _row(one: Dead) -> list[str]:
    place = f"{one.source} line {one.line}" if one.kind == "input" else one.input_id or ""
    name = one.id if one.kind == "input" else short(one.id)
    job = short(one.job) if one.job else ""
    when = moment(one.at)
    return [name, one.kind, one.agent or "", place, job, one.reason, str(one.attempts), when, one.message]


for _command in (list_command, show_command, redrive_command):
    dlq_command.add_command(_command)
