"""`retinue backup` and `retinue restore`: a project's data as of one moment, and back. Need no runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from retinue.host.backups import Restored, back_up_project, restore_project
from retinue.host.opening import identity_of
from retinue.host.presence import find_runtime
from retinue.ingress.exits import Exit
from retinue.ingress.render import counted
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import StoreBusy
from retinue.sandbox.snapshots.copying import Copied

_FOLDER = click.Path(path_type=Path, resolve_path=True)


@verb("backup")
@click.argument("target", type=_FOLDER)
@click.option("--without-keys", is_flag=True, help="Leave the keys out: nobody can read the contents without them.")
@click.option("--without-snapshots", is_flag=True, help="Leave the snapshots of workspaces out.")
@click.option("--link-dest", type=_FOLDER, metavar="EARLIER", help="Link snapshots that this backup has: saves space.")
async def backup_command(
    terminal: Terminal, target: Path, without_keys: bool, without_snapshots: bool, link_dest: Path | None
) -> Exit:
    """Copy the project's data into the new folder TARGET, as of one moment; runs may go on meanwhile."""
    settings = terminal.settings()
    work = partial(back_up_project, keys=not without_keys, snapshots=not without_snapshots, earlier=link_dest)
    counts, copied = await asyncio.to_thread(work, settings, target)
    place = settings.sandbox.snapshots
    keys = "without keys" if without_keys else "with keys: keep it as safe as they are"
    held = ", ".join(counted(counts[f"{noun}s"], noun) for noun in ("run", "frame", "blob"))
    text = f"{held}{_with(copied)} in {target}"
    said = {"target": str(target), **counts, "keys": not without_keys, "snapshots": copied, "snapshots_in": place}
    terminal.give(said, f"{text}, {keys}")
    if place is not None:
        terminal.note(f"snapshots of workspaces stay where they are, in {place}: keep versions of it, or copy it now")
    return Exit.done


@verb("restore")
@click.argument("backup", type=_FOLDER)
@click.option("--without-snapshots", is_flag=True, help="Leave the snapshots of workspaces where they are.")
async def restore_command(terminal: Terminal, backup: Path, without_snapshots: bool) -> Exit:
    """Make the project's data folder of a BACKUP, or fill the empty database that `store:` names. What had not ended
    is held: `retinue resume RUN` lets it go on. Every snapshot of a workspace is checked."""
    settings = terminal.settings()
    if find_runtime(settings.data_folder) is not None:
        raise StoreBusy(f"a runtime uses {settings.data_folder}: `retinue down` first")
    done = await asyncio.to_thread(restore_project, settings, backup, snapshots=not without_snapshots)
    where = identity_of(settings)
    held = f"{counted(done.runs, 'run')} {'is' if done.runs == 1 else 'are'} held: `retinue resume RUN` lets one go on"
    said = {"folder" if settings.store is None else "store": where, "held": done.runs, "snapshots": done.copied}
    terminal.give(said, f"restored into {where}{_with(done.copied)}; {held}")
    for note in _notes(done, settings.sandbox.snapshots):
        terminal.note(note)
    return Exit.done


def _with(copied: Copied | None) -> str:
    if copied is None:
        return ""
    shared = f", {counted(copied.linked, 'file')} linked" if copied.linked else ""
    return f", {counted(copied.snapshots, 'snapshot')} of workspaces ({copied.bytes:,} bytes{shared})"


def _notes(done: Restored, place: str | None) -> Iterator[str]:
    """What a person has to see to, so that runs find their workspaces."""
    if done.copied is not None and place is not None:
        yield f"snapshots are in the data folder, where `sandbox.snapshots: {place}` does not look: leave that key out"
    if done.place is not None and done.place != place:
        yield f"snapshots of workspaces were in {done.place}: name it, or a copy of it, under `sandbox.snapshots`"
