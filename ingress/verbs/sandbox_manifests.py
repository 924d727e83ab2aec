"""`retinue sandbox check`, `pin`: what a manifest makes and allows, and that somebody has looked at it."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import click

from retinue.host import clock
from retinue.host.sandboxing import enforcement, manifests_of
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.manifest_text import Checked, checked_facts, checked_text, pin_line, pinning_text
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import InvalidInput
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.manifests.loading import Loaded
from retinue.sandbox.manifests.pins import FILE, PinnedManifest, read_lock, write_lock
from retinue.sandbox.manifests.previewing import preview
from retinue.sandbox.profiles import Profile

_SECOND = 1_000_000_000


@verb("check")
@click.argument("manifest")
@click.option("--fetch", is_flag=True, help="Fetch commits of repositories elsewhere too, to see what they hold.")
@click.option("--quick", is_flag=True, help="Neither make it nor try what can be enforced here; read and check only.")
async def check_command(terminal: Terminal, manifest: str, fetch: bool, quick: bool) -> Exit:
    """Explain MANIFEST, a name or a file: what a workspace of it holds, what its programs may do and use, which secrets
    they are given, who has reviewed it, and what of its profile this machine can enforce, as real attempts show."""
    settings = terminal.settings()
    manifests = manifests_of(settings)
    path = await asyncio.to_thread(_file_of, settings, manifest)
    loaded = await asyncio.to_thread(manifests.examined, path if path is not None else manifests.path(manifest))
    checked = Checked(loaded=loaded, unset=tuple(name for name in loaded.manifest.secrets if not os.environ.get(name)))
    if not quick:
        parts = await preview(loaded, manifests.sources, fetch)
        checked = checked.with_parts(parts, *await _enforced(settings, loaded.profile))
    terminal.give(checked_facts(checked), checked_text(checked))
    return Exit.done if checked.usable else Exit.failed


@verb("pin")
@click.argument("name")
@click.option("--by", metavar="WHO", help="Who has looked at it. Default: `principal` of the configuration.")
@click.option("--yes", is_flag=True, help="Approve what is shown, without being asked.")
async def pin_command(terminal: Terminal, name: str, by: str | None, yes: bool) -> Exit:
    """Approve the manifest NAME as it is now: show what is not as it was pinned, ask, and write it into sandbox.lock
    with who said so and when. From then on it is used only so. The pin of a manifest that is gone is taken out."""
    settings = terminal.settings()
    manifests = manifests_of(settings)
    lock = await asyncio.to_thread(read_lock, settings.folder)
    if name in lock.manifests and name not in await asyncio.to_thread(manifests.names):
        terminal.note(f"{name} is no manifest any more")
        if not _approved(terminal, yes, f"take its pin out of {FILE}"):
            return Exit.usage
        write_lock(settings.folder, name, None)
        terminal.give({"name": name, "written": True}, f"{name}: its pin is gone from {FILE}")
        return Exit.done
    loaded = await asyncio.to_thread(manifests.examined, manifests.path(name))
    if loaded.pinned is not None and not loaded.changed:
        terminal.give({"name": name, "version": loaded.info.version, "written": False}, pin_line(loaded))
        return Exit.done
    terminal.note(pinning_text(loaded))
    if not _approved(terminal, yes, f"pin {name} so"):
        return Exit.usage
    who = by or settings.principal
    await asyncio.to_thread(write_lock, settings.folder, name, _pin(loaded, who))
    facts = {"name": name, "version": loaded.info.version, "by": who, "written": True}
    terminal.give(facts, f"{name}: {loaded.info.version} pinned in {FILE} by {who}; keep that file under version")
    return Exit.done


def _file_of(settings: Settings, given: str) -> Path | None:
    """The file that was named; None for a name."""
    path = Path(given)
    if os.sep not in given and path.suffix not in (".yaml", ".yml"):
        return None
    if not path.is_file():
        raise InvalidInput(f"{given}: there is no such file; give a name of a manifest in {settings.sandbox_folder}")
    return path


async def _enforced(settings: Settings, profile: Profile) -> tuple[str, dict[str, str], str]:
    """The backend, what it holds (by demand), and why the profile cannot be had here."""
    try:
        backend, report = await enforcement(settings, profile)
    except SandboxRefused as error:
        return "", {}, str(error)
    held = {
        demand: finding.assurance + (f" ({finding.why})" if finding.assurance != "enforced" and finding.why else "")
        for demand, finding in report.findings.items()
    }
    return f"{backend.name} {report.version}".strip(), {str(demand): said for demand, said in held.items()}, ""


def _pin(loaded: Loaded, by: str) -> PinnedManifest:
    at = datetime.fromtimestamp(clock.now_ns() // _SECOND, tz=UTC).isoformat().replace("+00:00", "Z")
    return PinnedManifest(
        by=by, at=at, version=loaded.info.version, revision=loaded.info.revision, facts=dict(loaded.facts)
    )


def _approved(terminal: Terminal, yes: bool, what: str) -> bool:
    if yes:
        return True
    if not terminal.talks:
        raise InvalidInput(f"nobody can be asked here: say --yes to {what}, after a look at `retinue sandbox check`")
    return click.confirm(f"{what}?", default=False, err=True)
