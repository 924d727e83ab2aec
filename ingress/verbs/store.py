"""`retinue store copy`: a store into another, from one database to another and back. Needs no runtime."""

from __future__ import annotations

import asyncio

import click

from retinue.host.moving import address_of, copy_store
from retinue.ingress.exits import Exit
from retinue.ingress.render import columns, counted
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.store.copying import Copied

_SHOWN = 16


@click.group("store")
def store_command() -> None:
    """What is done with a whole store. Each command takes --project and --json."""


@verb("copy")
@click.option("--from", "source", required=True, metavar="STORE", help="sqlite:FOLDER or postgresql://user@host/db")
@click.option("--to", "target", required=True, metavar="STORE", help="The same; empty, or a copy that was broken off.")
@click.option("--from-key", metavar="REF", help="What the source's keys are wrapped with, as `store_key` has it.")
@click.option("--to-key", metavar="REF", help="What the target's keys are to be wrapped with.")
@click.option("--keep-running", is_flag=True, help="A planned move, all hosts stopped: hold nothing in the target.")
async def copy_command(terminal: Terminal, source: str, target: str, **options: str | bool | None) -> Exit:
    """Copy all of a store, as of one moment, into another that is empty, and compare every table.

    Passwords and keys are references to the environment: ${NAME}. Without --from-key and --to-key the project's
    `store_key` is taken. Broken off, the same command goes on.
    """
    default = terminal.settings().store_key
    keys = [str(options[name]) if options[name] else default for name in ("from_key", "to_key")]
    one, other = address_of(source, "--from", keys[0]), address_of(target, "--to", keys[1])
    done = await asyncio.to_thread(copy_store, one, other, keep_running=bool(options["keep_running"]))
    parts = [{"name": part.name, "rows": part.rows, "hash": part.digest} for part in done.parts]
    said = {"source": done.source, "target": done.target, "again": done.again, "held": done.held, "tables": parts}
    terminal.give(said, _text(done))
    return Exit.done


def _text(done: Copied) -> str:
    rows = [[part.name, f"{part.rows:,}", part.digest[:_SHOWN]] for part in done.parts]
    how = "was copied before and is the same" if done.again else "copied, and the same on both sides"
    held = f"; {counted(done.held, 'run')} held in it: `retinue resume RUN` lets one go on" if done.held else ""
    return f"{columns(('TABLE', 'ROWS', 'HASH'), rows)}\n\n{done.source} to {done.target}: {how}{held}"


store_command.add_command(copy_command)
