"""What a workspace of a manifest would hold, found by making it in a folder that is thrown away.

Owns the sizes of the parts. Installs no packages and runs no program of the project. Knows no terminal.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from retinue.sandbox.manifests.building import Builder
from retinue.sandbox.manifests.loading import Loaded
from retinue.sandbox.manifests.materializing import Fetched, fetch_all, steps
from retinue.sandbox.manifests.sources import Sources
from retinue.sandbox.scratch import take
from retinue.sandbox.threads import in_thread


@dataclass(frozen=True, slots=True)
class Part:
    """A place of a manifest (`directories.src`), and what it adds: names, and bytes of files. `note`: what is not
    known before it is made."""

    place: str
    entries: int = 0
    bytes: int = 0
    note: str = ""


async def preview(loaded: Loaded, sources: Sources, remote: bool = False) -> list[Part]:
    """All parts, in the order in which they are made. `remote` fetches commits over the network too.

    Raises what making it would: SandboxRefused, PermanentError, TransientError, ConfigError.
    """
    scratch = await asyncio.to_thread(take)
    folder = scratch.folder
    try:
        work, into = folder / "work", folder / "tree"
        for each in (work, into):
            await asyncio.to_thread(each.mkdir)
        fetched = await fetch_all(loaded, sources, work, remote)
        parts = await in_thread(lambda stop: _measured(loaded, sources, into, fetched, stop))
        missing = [path for path in loaded.manifest.checkouts if path not in fetched]
        return [*(Part(f"checkouts.{path}", note="fetched when it is made") for path in missing), *parts]
    finally:
        await asyncio.shield(asyncio.to_thread(scratch.remove))


def _measured(loaded: Loaded, sources: Sources, into: Path, fetched: Fetched, stop: Event) -> list[Part]:
    found = []
    with Builder(into, loaded.profile.limits, stop, into.with_name("work")) as builder:
        for place, make in steps(loaded.manifest, sources, fetched):
            entries, size = builder.entries, builder.bytes
            make(builder)
            note = "what pip is given; installed when it is made" if place == "packages" else ""
            found.append(Part(place, builder.entries - entries, builder.bytes - size, note))
    return found
