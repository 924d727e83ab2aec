"""`retinue backup` and `retinue restore`: a project's data as of one moment, and back. Need no runtime."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from retinue.host.moving import back_up_shared, restore_shared
from retinue.host.opening import identity_of
from retinue.host.presence import find_runtime
from retinue.ingress.exits import Exit
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import StoreBusy
from retinue.store.backup import back_up, restore

_FOLDER = click.Path(path_type=Path, resolve_path=True)


@verb("backup")
@click.argument("target", type=_FOLDER)
@click.option("--without-keys", is_flag=True, help="Leave the keys out: nobody can read the contents without them.")
async def backup_command(terminal: Terminal, target: Path, without_keys: bool) -> Exit:
    """Copy the project's data into the new folder TARGET, as of one moment; runs may go on meanwhile."""
    settings = terminal.settings()
    if settings.store is not None:
        counts = await asyncio.to_thread(back_up_shared, settings, target, keys=not without_keys)
    else:
        counts = await asyncio.to_thread(back_up, settings.data_folder, target, keys=not without_keys)
    keys = "without keys" if without_keys else "with keys: keep it as safe as they are"
    text = f"{counts['runs']:,} runs, {counts['frames']:,} frames, {counts['blobs']:,} blobs in {target}, {keys}"
    terminal.give({"target": str(target), **counts, "keys": not without_keys}, text)
    return Exit.done


@verb("restore")
@click.argument("backup", type=_FOLDER)
async def restore_command(terminal: Terminal, backup: Path) -> Exit:
    """Make the project's data folder of a BACKUP, or fill the empty database that `store:` names. What had not ended
    is held: `retinue resume RUN` lets it go on."""
    settings = terminal.settings()
    if find_runtime(settings.data_folder) is not None:
        raise StoreBusy(f"a runtime uses {settings.data_folder}: `retinue down` first")
    if settings.store is not None:
        held = await asyncio.to_thread(restore_shared, settings, backup)
    else:
        held = await asyncio.to_thread(restore, backup, settings.data_folder)
    where = identity_of(settings)
    text = f"restored into {where}; {held:,} runs are held: `retinue resume RUN` lets one go on"
    terminal.give({"folder" if settings.store is None else "store": where, "held": held}, text)
    return Exit.done
