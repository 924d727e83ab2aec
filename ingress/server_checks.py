"""What `retinue doctor` says of the servers of capabilities: declared, pinned, and, when asked, whether they are there.

Knows no other check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from retinue.host.settings import Settings
from retinue.ingress.checks import Check
from retinue.ingress.pinning import Comparison, compare, stale_client
from retinue.ingress.render import counted
from retinue.runs.errors import ConfigError
from retinue.sessions.pins import FILE, Lock, read_lock
from retinue.sessions.servers import Server, missing_variables


def check_servers(settings: Settings) -> Iterator[Check]:
    """A row for each server that is declared or pinned. Connects to none."""
    try:
        lock = read_lock(settings.folder)
    except ConfigError as error:
        yield Check(name="capabilities", ok=False, said=str(error))
        return
    for server in settings.servers.values():
        wrong, said = _standing(server, lock)
        yield Check(name=f"server {server.name}", ok=not wrong, said=wrong or said)
    for name in sorted(lock.servers.keys() - settings.servers.keys()):
        said = f"warning: pinned in {FILE} and declared no longer: `retinue capabilities pin {name}` takes it out"
        yield Check(name=f"server {name}", ok=True, said=said)


async def reach_servers(settings: Settings) -> list[Check]:
    """A row for each declared server: whether it answers, and as it was pinned."""
    found = await compare(settings, settings.servers.values())
    return [Check(name=f"reach {one.server}", ok=one.same, said=_reached(one)) for one in found]


def _standing(server: Server, lock: Lock) -> tuple[str, str]:
    """What is wrong with a server, if anything, and what it is."""
    pins = lock.servers.get(server.name)
    if pins is None:
        return f"declared and not pinned, so nothing of it can be called: `retinue capabilities pin {server.name}`", ""
    missing = missing_variables(server, os.environ)
    if missing:
        return f"needs {', '.join(missing)}, which the environment does not have: set them for the runtime too", ""
    said = f"{server.address}: {counted(len(pins.tools), 'tool')} pinned by {pins.by} at {pins.at}"
    if stale_client(server, pins):
        said += f"; warning: `sampling` was another then: `retinue capabilities pin {server.name}`"
    return "", said


def _reached(one: Comparison) -> str:
    if one.problem:
        return one.problem
    if one.same:
        return f"answers after {one.seconds:.1f} s, and all is as pinned"
    return f"answers, and {counted(len(one.changes), 'tool')} not as pinned: `retinue capabilities diff {one.server}`"
