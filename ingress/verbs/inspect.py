"""`retinue inspect`: where a run stands and what resuming it would do. Reads the store; needs no runtime."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

import click

from retinue.host.answers import dollars
from retinue.host.clock import now_ns
from retinue.ingress.awaiting import Awaited
from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.inspection import FinishedStep, Inspection, NamedBoundary
from retinue.ingress.pending import commands
from retinue.ingress.pending_text import title
from retinue.ingress.render import duration, moment, money, short, standing
from retinue.ingress.terminal import Terminal, as_block
from retinue.ingress.trees import tree_facts, tree_text
from retinue.ingress.verb import verb
from retinue.runs.contracts import RunRecord

_SHOWN = 20
_MARGIN = 14
_WIDTH = 98 - _MARGIN
_WHY = 4


@verb("inspect")
@click.argument("run")
@click.option("--tree", is_flag=True, help="What is below it, too.")
@click.option("--full", metavar="KEY", help="Only this: the whole result of the step KEY, which was above its cap.")
async def inspect_command(terminal: Terminal, run: str, tree: bool, full: str | None) -> Exit:
    """Show RUN: its record, the cursor that resumes it, where replay begins, the boundaries its target names and
    which of them it has passed, the finished steps that will not be done again, what it waits for, its children,
    its budget, and what helps if it failed."""
    async with open_controls(terminal.settings()) as client:
        if full is not None:
            one, value = await client.full_output(run, full)
            terminal.give({**one.model_dump(), "value": value}, value if isinstance(value, str) else as_block(value))
            return Exit.done
        seen = await client.inspect(run)
        found = await client.tree(run) if tree else None
    facts = seen.model_dump(mode="json")
    facts["record"]["cost_usd"] = dollars(seen.record.usage.micros)
    facts["children"] = [{**group.model_dump(mode="json"), "text": str(group)} for group in seen.children]
    now = now_ns()
    text = shown(seen, now)
    if found is not None:
        facts["tree"] = tree_facts(found)
        text += "\n" + _line("tree", tree_text(found, now))
    terminal.give(facts, text)
    return Exit.done


def shown(seen: Inspection, now: int) -> str:
    """What the command prints as of `now` (Unix ns): a name and a text a line."""
    return "\n".join(_line(name, text) for name, text in _lines(seen, now))


def _line(name: str, text: str) -> str:
    inner = text.replace("\n", "\n" + " " * _MARGIN)
    return f"{name:<{_MARGIN}}{inner}"


def _lines(seen: Inspection, now: int) -> Iterator[tuple[str, str]]:
    yield from _record_lines(seen.record)
    yield "budget", _budget(seen)
    yield from _place_lines(seen)
    yield "kept", f"{len(seen.finished)} finished steps since then, {seen.finished_before} before; none is done again"
    if len(seen.finished) > _SHOWN:
        yield "", f"… {len(seen.finished) - _SHOWN} more; --json has all"
    for step in seen.finished[-_SHOWN:]:
        yield "", _step(step)
    for step in seen.in_flight:
        yield "in flight", _step(step)
    for one in seen.full_outputs[-_SHOWN:]:
        whole = f"{one.key}: {one.name} returned {one.size:,} bytes, more than its cap; sha256 {one.sha256[:12]}"
        yield "full output", f"{whole}\n`retinue inspect {short(seen.record.run_id)} --full {shlex.quote(one.key)}`"
    for group in seen.children[-_SHOWN:]:
        yield "children", f"{group.name}: {group}"
    for waits in seen.waits:
        yield "waits for", _waits(waits, seen.record, now)
    for text in seen.failed_tries:
        yield "failed try", text
    if seen.erased:
        yield "erased", "what was said in it is gone with its tenant's key; these facts are left"
    ended = (("checked", seen.checked), ("error", seen.error), ("what helps", seen.remedy))
    yield from ((name, text) for name, text in ended if text)


def _place_lines(seen: Inspection) -> Iterator[tuple[str, str]]:
    if seen.record.status.terminal:
        yield "journal", f"{seen.record.position} entries, epoch {seen.cursor.epoch}; it has ended and is not resumed"
    else:
        yield "cursor", f"resumes at position {seen.cursor.position}, epoch above {seen.cursor.epoch}"
    edge = seen.boundary
    at = f"checkpoint {edge.name} {edge.number}, position {edge.position}" if edge.number else "the beginning"
    yield "replay from", at if seen.record.status.terminal else f"{at}: replay starts here"
    for boundary in seen.boundaries:
        yield "boundary", _boundary(boundary)


def _record_lines(record: RunRecord) -> Iterator[tuple[str, str]]:
    yield "run", f"{record.run_id}  {record.kind} {record.target}"
    yield "status", standing(record) + (f" ({record.reason.value})" if record.reason else "")
    family = {"parent": record.parent_run_id, "root": record.root_run_id, "job": record.job_id}
    if record.input_id is not None:
        yield "input", record.input_id
    for name, value in family.items():
        if value is not None and value != record.run_id:
            yield name, value
    yield "tenant", record.tenant_id
    if record.queue or record.priority:
        yield "queue", f"{record.queue or '(none)'}, priority {record.priority}"
    times = {"accepted": record.created_at, "started": record.started_at, "finished": record.finished_at}
    yield "times", ", ".join(f"{name} {moment(value)}" for name, value in times.items() if value is not None)
    if record.wake_at is not None:
        yield "wakes", moment(record.wake_at)
    if record.pid is not None:
        yield "host", f"actor {record.actor_id or '(none)'}, pid {record.pid}, node {record.node}"
    if record.cancel is not None:
        yield "cancel", f"asked by {record.cancel}"


def _budget(seen: Inspection) -> str:
    usage, limits = seen.record.usage, seen.budget
    spent = {
        "steps": (str(usage.steps), limits.steps),
        "calls": (str(usage.hops), limits.hops),
        "tokens": (str(usage.tokens), limits.tokens),
        "cost": (money(usage.micros), None if limits.micros is None else money(limits.micros)),
    }
    parts = [f"{name} {had}" + (f" of {limit}" if limit is not None else "") for name, (had, limit) in spent.items()]
    if limits.seconds is not None:
        parts.append(f"{limits.seconds:g} s of wall time")
    return ", ".join(parts)


def _boundary(one: NamedBoundary) -> str:
    if not one.passed:
        return f"{one.name}: not passed ({one.meaning})"
    times = "passed" if one.passed == 1 else f"passed {one.passed} times, last"
    here = ", the newest" if one.newest else ""
    return f"{one.name}: {times} at position {one.position}{here} ({one.meaning})"


def _step(step: FinishedStep) -> str:
    return f"{step.position:>5}  {step.effect} {step.name}: {step.result}  ({step.key})"


def _waits(waits: Awaited, record: RunRecord, now: int) -> str:
    lines = [f"{title(waits)}, for {duration((now - waits.since) / 1e9)}  ({waits.key})", *_why(waits)]
    if waits.due is not None:
        lines.append(f"due {moment(waits.due)}")
    lines += [f"`{command}`" for command in commands(waits, record.run_id)]
    return "\n  ".join(lines)


def _why(waits: Awaited) -> list[str]:
    """Its words, wrapped, and the rules of the gate; of long words the beginning."""
    found = [part for line in waits.why.splitlines() for part in textwrap.wrap(line, _WIDTH)]
    cut = found if len(found) <= _WHY else [*found[:_WHY], "…"]
    return cut + ([f"rule {', '.join(waits.rules)}"] if waits.rules else [])
