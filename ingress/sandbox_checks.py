"""What `retinue doctor` says of sandboxes: what each backend holds on this machine, as attempts showed.

Runs programs in a temporary folder for a few seconds. Knows no other check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from retinue.host.composition import load_project
from retinue.host.sandboxing import manifests_of, sandboxing_of
from retinue.host.settings import Settings
from retinue.ingress.checks import Check
from retinue.runs.errors import ConfigError, RetinueError
from retinue.runs.sandboxes import Assurance
from retinue.sandbox.backends.choosing import AUTO, Backends
from retinue.sandbox.backends.port import Finding, Report
from retinue.sandbox.backends.unconfined import NAME as UNCONFINED
from retinue.sandbox.profiles import STRICT, Profile


async def try_sandboxes(settings: Settings) -> list[Check]:
    """A row for the profiles that can be enforced, and one for each backend that confines. The first is a failed one
    where what is set cannot be, and where agents of the project have a sandbox and nothing can enforce `strict`.
    """
    try:
        node, profiles = sandboxing_of(settings), manifests_of(settings).profiles
    except ConfigError as error:
        return [Check(name="sandbox", ok=False, said=str(error))]
    backends = await asyncio.to_thread(Backends, None if node.users is None else node.users[1])
    try:
        probes = (backend.probe() for backend in backends.all if backend.name != UNCONFINED)
        reports = await asyncio.gather(*probes)
    finally:
        await asyncio.to_thread(backends.close)
    usable = [one for one in reports if node.backend in (AUTO, one.backend)]
    needed = await asyncio.to_thread(_agents_with_sandboxes, settings)
    confined = [profile for profile in profiles.values() if profile.confined]
    return [
        _profiles(usable, confined, needed),
        *(Check(name=one.backend, ok=True, said=_told(one)) for one in reports),
    ]


def _agents_with_sandboxes(settings: Settings) -> list[str]:
    """By name; none where the project cannot be loaded, which another check tells."""
    try:
        return sorted(load_project(settings).registry.sandboxes)
    except RetinueError:
        return []


def _profiles(usable: list[Report], profiles: Iterable[Profile], needed: list[str]) -> Check:
    able = {profile.name: [one.backend for one in usable if not one.lacking(profile)] for profile in profiles}
    told = [f"{name} by {' or '.join(found)}" if found else f"{name} by nothing here" for name, found in able.items()]
    if needed and not able[STRICT.name]:
        told.append(f"{', '.join(needed)} cannot run: mend what a backend below lacks")
        return Check(name="sandbox", ok=False, said="; ".join(told))
    return Check(name="sandbox", ok=True, said="; ".join(told))


def _told(report: Report) -> str:
    """Demands by how well they are met; of those that are not, why and what mends it, each cause once."""
    parts = [report.version] if report.version else []
    enforced = [demand for demand, finding in report.findings.items() if finding.assurance == "enforced"]
    parts += [f"enforced: {', '.join(enforced)}"] if enforced else []
    return "; ".join([*parts, *_gaps(report, "limited"), *_gaps(report, "absent")])


def _gaps(report: Report, assurance: Assurance) -> Iterator[str]:
    causes: dict[Finding, list[str]] = {}
    for demand, finding in report.findings.items():
        if finding.assurance == assurance:
            causes.setdefault(finding, []).append(demand)
    for finding, them in causes.items():
        yield f"{assurance}: {', '.join(them)} ({finding.why}; remedy: {finding.remedy})"
