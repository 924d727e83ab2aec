"""`retinue sandbox diff`, `gc`, `export`, `import`: snapshots of workspaces in the project's store of them. Needs no
runtime."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from retinue.host.sandbox_keeping import Sweeping, collect_snapshots, keeping_of
from retinue.host.sandboxes import open_sandboxes, sweep_left, this_node
from retinue.host.sandboxing import sandboxing_of
from retinue.ingress.boxes import Boxes, Source, check_manifest, check_new, check_pin, replaced_text
from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import counted
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import Duration, verb
from retinue.runs.errors import InvalidInput
from retinue.sandbox.snapshots.collecting import Collected
from retinue.sandbox.snapshots.exporting import export, import_
from retinue.sandbox.snapshots.rules import Quota
from retinue.sandbox.snapshots.trees import Changes

_TENANT = click.option("--tenant", help="Whose snapshots. Default: the configuration's.")


@verb("diff")
@click.argument("old")
@click.argument("new")
@_TENANT
async def diff_command(terminal: Terminal, old: str, new: str, tenant: str | None) -> Exit:
    """Tell which files differ between OLD and NEW: snapshots, pins, or sandboxes, which stand for their newest
    snapshot."""
    settings = terminal.settings()
    async with open_controls(settings) as client:
        boxes = Boxes(settings, client.store)
        before, after = await boxes.source(old, tenant=tenant), await boxes.source(new, tenant=tenant)
        if before.tenant != after.tenant:
            raise InvalidInput(f"{old} is of tenant {before.tenant!r} and {new} of {after.tenant!r}: name two of one")
        found = await boxes.snapshots.diff(before.kept, after.kept, before.tenant)
    said = {"old": before.kept, "new": after.kept}
    changes = {"added": found.added, "removed": found.removed, "changed": found.changed}
    terminal.give(said | changes, _changes_text(found))
    return Exit.done


@verb("gc")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--keep", type=Duration(), metavar="SPAN", help="Time of grace. Default: `sandbox.keep`.")
@click.option("--unpin", metavar="NAME", help="Take this pin of the tenant out first.")
@click.option("--tenant", help="Only snapshots of this tenant.")
async def gc_command(
    terminal: Terminal, dry_run: bool, keep: float | None, unpin: str | None, tenant: str | None
) -> Exit:
    """Remove snapshots that no run which goes on, or has ended not long ago, and no pin needs; then what no snapshot
    needs, and the workspaces on this machine that are done with. What was taken in the last minute stays."""
    if dry_run and unpin is not None:
        raise click.UsageError("--dry-run takes out no pin: leave out --unpin, or --dry-run")
    settings = terminal.settings()
    async with open_controls(settings) as client:
        store = client.store
        if unpin is not None:
            gone = await store.sandbox_records.unpin(tenant or settings.tenant, unpin)
            terminal.note(f"pin {unpin} of {gone.snapshot_id} is taken out")
        found = await collect_snapshots(keeping_of(settings, store, keep, dry_run), tenant)
        workspaces = 0
        if not dry_run:
            room = open_sandboxes(settings, store)
            workspaces = await room.sweep(Sweeping(store, this_node()).done)
            await room.close()
            await asyncio.to_thread(sweep_left, settings)
    said = {name: _facts(each) for name, each in found.items()}
    terminal.give({"dry_run": dry_run, "tenants": said, "workspaces": workspaces}, _gc_text(found, workspaces, dry_run))
    return Exit.done


@verb("export")
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path))
@_TENANT
async def export_command(terminal: Terminal, source: str, file: Path, tenant: str | None) -> Exit:
    """Write the snapshot that SOURCE stands for to FILE (.tar.zst), in plain: whoever has the file can read it."""
    settings = terminal.settings()
    await asyncio.to_thread(check_new, file)
    async with open_controls(settings) as client:
        boxes = Boxes(settings, client.store)
        found = await boxes.source(source, tenant=tenant)
        done = await export(boxes.snapshots, found.kept, found.tenant, file)
    said = {"snapshot": done.snapshot_id, "file": str(file), "entries": done.entries, "bytes": done.bytes}
    terminal.give(said | {"size": done.size}, f"{done.snapshot_id}: {done.bytes:,} bytes in {file} ({done.size:,})")
    return Exit.done


@verb("import")
@click.argument("file", type=click.Path(path_type=Path))
@_TENANT
@click.option("--pin", metavar="NAME", help="Keep it under this name; else it goes when `sandbox.keep` is over.")
@click.option("--manifest", help="With --pin: what sandboxes of it are opened under.")
async def import_command(
    terminal: Terminal, file: Path, tenant: str | None, pin: str | None, manifest: str | None
) -> Exit:
    """Keep the snapshot in FILE, which `export` has written; every byte is checked."""
    if (pin is None) != (manifest is None):
        raise click.UsageError("--pin NAME and --manifest NAME belong together: give both or none")
    settings = terminal.settings()
    owner = tenant or settings.tenant
    if pin is not None and manifest is not None:
        check_pin(pin, settings)
        check_manifest(manifest, settings)
    async with open_controls(settings) as client:
        boxes = Boxes(settings, client.store)
        quota = Quota(store_bytes=(await asyncio.to_thread(sandboxing_of, settings)).snapshot_bytes)
        done = await import_(boxes.snapshots, file, owner, quota)
        before = None
        if pin is not None and manifest is not None:
            before = await boxes.pin(pin, Source(owner, manifest, done.snapshot_id))
    said = {"snapshot": done.snapshot_id, "entries": done.entries, "bytes": done.bytes, "pin": pin}
    terminal.give(said, done.snapshot_id)
    if before is not None:
        terminal.note(replaced_text(before))
    return Exit.done


def _changes_text(found: Changes) -> str:
    lines = [f"+ {path}" for path in found.added] + [f"- {path}" for path in found.removed]
    lines += [f"~ {path}" for path in found.changed]
    lines = [line.replace("\n", "\\n") for line in lines]
    return "\n".join(sorted(lines, key=lambda line: line[2:])) or "no difference"


def _facts(found: Collected) -> dict[str, object]:
    return {"snapshots": found.snapshots, "objects": found.objects, "bytes": found.bytes, "kept": found.kept}


def _gc_text(found: dict[str, Collected], workspaces: int, dry: bool) -> str:
    verb_ = "would go" if dry else "gone"
    lines = [
        f"{name}: {counted(len(each.snapshots), 'snapshot')} and {counted(each.objects, 'object')} {verb_} "
        f"({each.bytes:,} bytes), {counted(each.kept, 'snapshot')} kept"
        for name, each in found.items()
    ]
    lines += [f"{counted(workspaces, 'workspace')} on this machine gone"] if workspaces else []
    return "\n".join(lines) or "no snapshots"
