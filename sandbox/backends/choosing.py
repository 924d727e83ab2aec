"""Which backend runs a profile: the one that was named, or the first that meets all it demands here.

Owns the choice and the words of a refusal. Knows no backend but through its port. It never weakens in silence: an
unconfined profile goes to the unconfined backend, which nothing else does, and what is missing is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from retinue.runs.errors import ConfigError
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.backends import roots
from retinue.sandbox.backends.bubblewrap import Bubblewrap
from retinue.sandbox.backends.cgroups import find
from retinue.sandbox.backends.execution import Runner
from retinue.sandbox.backends.landlock import Landlock
from retinue.sandbox.backends.launching import Launcher
from retinue.sandbox.backends.port import Backend, Demand, Finding, Report, demands
from retinue.sandbox.backends.unconfined import NAME as UNCONFINED
from retinue.sandbox.backends.unconfined import Unconfined
from retinue.sandbox.profiles import Profile

AUTO = "auto"


class Backends:
    """The backends of this process, strongest first. `uid` is the user of self-tests where the host is root. Close it
    when nothing runs any more.
    """

    def __init__(self, uid: int | None, others: Iterable[Backend] = ()) -> None:
        self._runner = Runner(Launcher(), find())
        self.all: tuple[Backend, ...] = (
            Bubblewrap(self._runner, uid),
            Landlock(self._runner, uid),
            *others,
            Unconfined(self._runner),
        )

    async def choose(self, name: str, profile: Profile) -> tuple[Backend, Report]:
        """See `choose`."""
        return await choose(self.all, name, profile)

    def close(self) -> None:
        """Remove what they share. What still runs goes on to its end."""
        self._runner.close()


async def choose(backends: Sequence[Backend], name: str, profile: Profile) -> tuple[Backend, Report]:
    """The backend of this name, or for `auto` the first that is fit for a profile, with its report. ConfigError for an
    unknown name; SandboxRefused when none is fit, naming each demand that is not met, why, and what mends it, and for a
    path that the profile shows and that is not there.
    """
    named = {backend.name: backend for backend in backends}
    if name != AUTO and name not in named:
        raise ConfigError(f"`sandbox: backend: {name}` is not known: write {AUTO}, {', '.join(named)}")
    if not profile.confined:
        return named[UNCONFINED], await named[UNCONFINED].probe()
    if name == UNCONFINED:
        raise SandboxRefused(
            f"profile {profile.name} is confined, and `sandbox: backend: {UNCONFINED}` confines nothing: name another "
            f"backend, or {AUTO}",
            code="sandbox_unconfined",
        )
    roots.checked(profile)
    asked = [named[name]] if name != AUTO else [backend for key, backend in named.items() if key != UNCONFINED]
    lacking: dict[str, Mapping[Demand, Finding]] = {}
    for backend in asked:
        report = await backend.probe()
        missing = report.lacking(profile)
        if not missing:
            return backend, report
        lacking[backend.name] = missing
    raise SandboxRefused(_refusal(profile, lacking), code="sandbox_backend")


def _refusal(profile: Profile, lacking: Mapping[str, Mapping[Demand, Finding]]) -> str:
    """One line for each backend; demands that fail for one cause stand together."""
    lines = [f"profile {profile.name} cannot be enforced on this node, so nothing was run."]
    for name, missing in lacking.items():
        causes: dict[Finding, list[str]] = {}
        for demand, finding in missing.items():
            causes.setdefault(finding, []).append(demand)
        told = [
            f"{'everything' if len(them) == len(demands(profile)) else ', '.join(them)}: {finding.why}; "
            f"remedy: {finding.remedy}"
            for finding, them in causes.items()
        ]
        lines.append(f"{name}: " + " | ".join(told))
    return "\n".join(lines)
