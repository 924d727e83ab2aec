"""`retinue sandbox list`, `show`: the sandboxes of runs as the store has them. Needs no runtime."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from retinue.host.clock import now_ns
from retinue.ingress.boxes import Boxes, Shown
from retinue.ingress.controls import Controls, open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.lists import of_run, that_stand, wanted_by
from retinue.ingress.render import columns, counted, duration, moment, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.control import SandboxQuery, SandboxRecord
from retinue.runs.sandboxes import SandboxState, SandboxStatus

_HEAD = ("SANDBOX", "RUN", "NAME", "MANIFEST", "STATUS", "GENERATION", "HEAD", "FLAGS", "FOR", "CAUSE")
_PINS = ("PIN", "TENANT", "SNAPSHOT", "MANIFEST", "BY", "SINCE")
_SHORT = 15
_WHOLE = 80
"""Characters of a cell with the id of a snapshot, which is to be copied."""
_FLAGS = ("can_resume", "can_snapshot", "must_recreate")


@verb("list")
@of_run
@click.option("--manifest", help="Only those of this manifest.")
@partial(that_stand, SandboxStatus)
@click.option("--pins", is_flag=True, help="The snapshots that are kept by name, instead.")
async def list_command(terminal: Terminal, pins: bool, **wanted: Any) -> Exit:
    """List sandboxes, newest first: open and lost ones, unless --all or a --status says otherwise."""
    async with open_controls(terminal.settings()) as client:
        if pins:
            return await _list_pins(terminal, client, wanted)
        asked = await wanted_by(client, SandboxStatus, wanted)
        found = await client.store.sandbox_records.listed(SandboxQuery(manifest=wanted["manifest"], **asked))
    now = now_ns()
    terminal.give(found, columns(_HEAD, [_row(each, now) for each in found]) if found else "no sandboxes")
    return Exit.done


@verb("show")
@click.argument("sandbox")
async def show_command(terminal: Terminal, sandbox: str) -> Exit:
    """Show all that is known of SANDBOX: how it stands, how it is confined, its moves, and what was lost in it."""
    settings = terminal.settings()
    async with open_controls(settings) as client:
        found = await Boxes(settings, client.store).shown(sandbox)
    terminal.give(found, _text(found))
    return Exit.done


async def _list_pins(terminal: Terminal, client: Controls, wanted: dict[str, Any]) -> Exit:
    if wanted["run"] is not None or wanted["status"] is not None:
        raise click.UsageError("--pins lists snapshots, which have neither --run nor --status: leave them out")
    pins = await client.store.sandbox_records.pins(wanted["tenant"])
    found = [pin for pin in pins if wanted["manifest"] in (None, pin.manifest)][: wanted["limit"]]
    rows = [[pin.name, pin.tenant_id, pin.snapshot_id, pin.manifest, pin.by, moment(pin.at)] for pin in found]
    terminal.give(
        found, columns(_PINS, rows, _WHOLE) if rows else "no pins: `retinue sandbox snapshot SOURCE --pin NAME`"
    )
    return Exit.done


def _row(one: SandboxRecord, now: int) -> list[str]:
    state = one.state
    return [
        short(state.sandbox_id),
        short(one.run_id),
        state.name,
        state.manifest,
        state.status.value,
        str(state.generation),
        _head(state),
        _flags(state),
        duration((now - state.changed_at) / 1e9),
        state.cause,
    ]


def _head(state: SandboxState) -> str:
    if state.head_snapshot_id is None:
        return "none"
    behind = state.generation - state.head_generation
    return state.head_snapshot_id[:_SHORT] + (f" ({behind} behind)" if behind else "")


def _flags(state: SandboxState) -> str:
    return " ".join(name for name in _FLAGS if getattr(state, name)) or "none"


def _text(shown: Shown) -> str:
    one, state = shown.record, shown.record.state
    held = ", ".join(f"{demand} {how}" for demand, how in state.confinement.items())
    head = f"{state.head_snapshot_id}, generation {state.head_generation}" if state.head_snapshot_id else "none"
    told = {
        "sandbox": f"{state.sandbox_id} ({state.name})"
        + (f", in its run {one.place}" * (one.place != state.sandbox_id)),
        "run": f"{one.run_id} ({one.run_status.value}), root {one.root_run_id}",
        "tenant": one.tenant_id,
        "trace": one.trace_id,
        "manifest": f"{state.manifest} {state.manifest_version}",
        "profile": f"{state.profile} {state.profile_digest}",
        "status": f"{state.status.value}, since {moment(state.changed_at)}: {state.cause}",
        "flags": _flags(state),
        "generation": str(state.generation),
        "head": head + ("" if shown.kept or state.head_snapshot_id is None else " (not in the store any more)"),
        "base": state.base_snapshot_id or "the manifest",
        "forked": state.forked_from or "",
        "holds": f"{counted(state.entries, 'name')}, {state.bytes:,} bytes",
        "omitted": ", ".join(state.omitted),
        "backend": f"{state.backend}{f', by {state.tier}' * bool(state.tier)}, on {state.node}, epoch {state.epoch}",
        "confined": held or "not at all",
        "opened": moment(state.opened_at),
        "closed": moment(state.closed_at) if state.closed_at is not None else "",
    }
    lines = [f"{name:<10} {said}" for name, said in told.items() if said]
    lines += [f"lost       {each.operation} ({each.key}), begun {moment(each.began_at)}" for each in shown.lost_execs]
    lines += [f"{moment(move.at)}  {move.event:<10} {move.generation:>4}  {move.cause}" for move in shown.moves]
    return "\n".join(lines)
