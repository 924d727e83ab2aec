"""`retinue sessions list`, `show`, `close`: what runs have open with servers of capabilities. Needs no runtime."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from retinue.host.clock import now_ns
from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.lists import of_run, that_stand, wanted_by
from retinue.ingress.render import columns, duration, moment, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb, what_follows
from retinue.runs.control import SessionQuery, SessionRecord
from retinue.runs.sessions import SessionStatus

_HEAD = ("SESSION", "RUN", "SERVER", "STATUS", "FOR", "CAUSE")


@click.group("sessions")
def sessions_command() -> None:
    """Sessions of runs with servers of capabilities. Each command takes --project and --json."""


@verb("list")
@of_run
@click.option("--server", help="Only those with this server.")
@partial(that_stand, SessionStatus)
async def list_command(terminal: Terminal, **wanted: Any) -> Exit:
    """List sessions, newest first: open ones, unless --all or a --status says otherwise."""
    async with open_controls(terminal.settings()) as client:
        asked = await wanted_by(client, SessionStatus, wanted)
        found = await client.sessions(SessionQuery(server=wanted["server"], **asked))
    now = now_ns()
    terminal.give(found, columns(_HEAD, [_row(each, now) for each in found]) if found else "no sessions")
    return Exit.done


@verb("show")
@click.argument("session")
async def show_command(terminal: Terminal, session: str) -> Exit:
    """Show all that is known of SESSION; what its calls can be continued with stays sealed."""
    async with open_controls(terminal.settings()) as client:
        found = await client.session(session)
    terminal.give(found, _text(found))
    return Exit.done


@verb("close")
@click.argument("session")
@click.option("--by", help="Who says it. Default: the configuration's principal.")
async def close_command(terminal: Terminal, session: str, by: str | None) -> Exit:
    """Close SESSION: its open calls end (a write in flight as unknown), and the next call begins a new session."""
    settings = terminal.settings()
    async with open_controls(settings) as client:
        found = await client.close_session(session, by)
    terminal.give(found, f"session {short(found.session_id)} is to be closed; {what_follows(settings, found.run_id)}")
    return Exit.done


def _row(one: SessionRecord, now: int) -> list[str]:
    since = duration((now - one.changed_at) / 1e9)
    return [short(one.session_id), short(one.run_id), one.server, one.status.value, since, one.cause]


def _text(one: SessionRecord) -> str:
    expires = f"{moment(one.expires_at)}, says {one.expires_from}" if one.expires_at is not None else "not disclosed"
    told = {
        "session": f"{one.session_id} ({one.server}, its {one.number + 1}. session of the run)",
        "run": f"{one.run_id}, root {one.root_run_id}",
        "tenant": one.tenant_id,
        "trace": one.trace_id,
        "status": f"{one.status.value}, since {moment(one.changed_at)}: {one.cause}",
        "approval": one.approval or "none was asked for",
        "wire": " ".join(filter(None, (one.transport, one.protocol, one.scope))) or "no connection yet",
        "wire id": one.wire_session_id or "none, or not tracked",
        "expires": expires,
        "token": "kept, sealed" if one.resumable else "none",
        "pins": one.pins or "none",
        "opened": moment(one.opened_at),
        "closed": moment(one.closed_at) if one.closed_at is not None else "",
    }
    return "\n".join(f"{name:<9} {said}" for name, said in told.items() if said)


for _command in (list_command, show_command, close_command):
    sessions_command.add_command(_command)
