"""`retinue memory list|show|forget`: what agents remember, of whom, from which run. Needs no runtime."""

from __future__ import annotations

from typing import Any

import click

from retinue.host.clock import now_ns
from retinue.ingress.exits import Exit
from retinue.ingress.memories import Remembered, find, forget, remembered
from retinue.ingress.render import cut, moment
from retinue.ingress.terminal import Terminal, as_block
from retinue.ingress.verb import verb
from retinue.runs.memories import SCOPES
from retinue.store.memories import Listing

_SHOWN = 60


@verb("list")
@click.option("--tenant", "tenant_id", help="Of this tenant. Default: of all.")
@click.option("--scope", type=click.Choice(SCOPES), help="Of this scope.")
@click.option("--owner", help="Of this agent, principal or instance.")
@click.option("--run", "run_id", help="Written by this run.")
@click.option("--all", "everything", is_flag=True, help="Replaced, forgotten and expired ones too, without content.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="At most so many.")
async def _list(terminal: Terminal, **wanted: Any) -> Exit:
    """List memories, newest first: whose they are, and which agent wrote them when."""
    found = await remembered(terminal.settings(), Listing(**wanted))
    terminal.give(found, "\n".join(map(_line, found)) or "nothing is remembered")
    return Exit.done


@verb("show")
@click.argument("memory", metavar="ID")
async def _show(terminal: Terminal, memory: str) -> Exit:
    """Show the memory ID: its content, and from what it was made. The beginning of an ID will do."""
    found = await find(terminal.settings(), memory)
    terminal.give(found, _block(found))
    return Exit.done


@verb("forget")
@click.argument("memory", metavar="ID")
@click.option("--by", help="Who says it. Default: the configuration's principal.")
async def _forget(terminal: Terminal, memory: str, by: str | None) -> Exit:
    """Forget the memory ID: its content is gone at once, that it was there is kept."""
    gone = await forget(terminal.settings(), memory, by, now_ns())
    terminal.give(gone, f"forgotten: {gone.memory_id}, which {gone.agent} wrote {moment(gone.at)}")
    return Exit.done


def _line(one: Remembered) -> str:
    said = f"({one.state})" if one.content is None else cut(" ".join(one.text.split()), _SHOWN)
    return f"{one.memory_id[:12]}  {moment(one.at)}  {one.tenant}  {one.space:<20}  {said}"


def _block(one: Remembered) -> str:
    content = one.text if isinstance(one.content, str) else as_block(one.content)
    lines = {
        "memory": one.memory_id,
        "of": f"{one.space}, tenant {one.tenant}",
        "key": one.key or "",
        "tags": ", ".join(one.tags),
        "state": one.state,
        "written": f"{moment(one.at)} by {one.agent} {one.version} for {one.principal}",
        "from": f"run {one.run_id}, step {one.step}",
        "until": moment(one.expires_at) if one.expires_at else "",
        "content": "(gone)" if one.content is None else content,
    }
    return "\n".join(f"{name:<9}{text}" for name, text in lines.items() if text)


memory_command = click.Group(
    "memory",
    commands={"list": _list, "show": _show, "forget": _forget},
    help="List what agents remember, show one memory with its origin, or forget it. Each takes --project and --json.",
)
