"""`retinue up`, `down`, `status`: the runtime that outlives commands.

Knows Ray only through `actors.runtime`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from retinue.actors import runtime
from retinue.ingress.exits import Exit
from retinue.ingress.render import columns
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb


@verb("up")
async def up_command(terminal: Terminal) -> Exit:
    """Start a runtime for the project: Ray, a supervisor and its actors. It lives until `retinue down`.

    Joins Ray where RAY_ADDRESS or `cluster:` names one. Harmless when the runtime lives already.
    """
    said = await asyncio.to_thread(runtime.up, terminal.settings())
    terminal.give({"alive": True, **said}, _text(said))
    return Exit.done


@verb("down")
async def down_command(terminal: Terminal) -> Exit:
    """Stop the project's runtime. Runs it hosted stay in the store and go on with the next runtime."""
    stopped = await asyncio.to_thread(runtime.down, terminal.settings())
    terminal.give({"stopped": stopped}, "stopped" if stopped else "no runtime was running")
    return Exit.done


@verb("status")
async def status_command(terminal: Terminal) -> Exit:
    """Show the project's runtime. Exit code 6 when none lives."""
    settings = terminal.settings()
    said = await asyncio.to_thread(runtime.status, settings)
    if said is None:
        terminal.give({"alive": False}, f"no runtime serves {settings.data_folder}: `retinue up` starts one")
        return Exit.runtime
    terminal.give({"alive": True, **said}, _text(said))
    return Exit.done


def _text(said: dict[str, Any]) -> str:
    rows = [
        [str(actor.get(name, "")) for name in ("name", "kind", "pid", "active", "finished")] for actor in said["actors"]
    ]
    head = f"runtime on {said['node']}: supervisor pid {said['pid']}, Ray at {said['address']}"
    return f"{head}\n\n{columns(('ACTOR', 'KIND', 'PID', 'HOLDS', 'FINISHED'), rows)}"
