"""What `retinue doctor` looks at: the machine, the project, the runtime. Each check says what it found.

Changes nothing but a probe file in the data folder. Knows no terminal.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from retinue.host.composition import load_project
from retinue.host.presence import cluster_address, runtime_of
from retinue.host.settings import FILE, Settings
from retinue.ingress.store_checks import STORE_CHECKS
from retinue.policy.load import load_gate
from retinue.runs.contracts import Frozen
from retinue.runs.errors import RetinueError
from retinue.runs.messages import ModelRequest

ENOUGH_BYTES = 1 << 30
"""Free space below which the disk check fails."""


class Check(Frozen):
    """One thing that was looked at; `said` is what was found, or what is wrong and the remedy."""

    name: str
    ok: bool
    said: str


def check_all(settings: Settings) -> Iterator[Check]:
    """Every check, in order. A check that cannot be made is a failed one; what failed it is told once."""
    told: dict[str, str] = {}
    for name, look in _CHECKS.items():
        try:
            yield Check(name=name, ok=True, said=look(settings))
        except Exception as error:  # a user's module may raise anything
            known = isinstance(error, RetinueError | OSError)
            said = str(error) if known else f"{type(error).__name__}: {error}"
            yield Check(name=name, ok=False, said=f"see {told[said]}" if said in told else said)
            told.setdefault(said, name)


class _Wrong(RetinueError):
    """What a check found is not good enough; the message holds the remedy."""


def _python(settings: Settings) -> str:
    return f"Python {sys.version.split()[0]}, {platform.system()} {platform.machine()}"


def _sqlite(settings: Settings) -> str:
    return f"SQLite {'.'.join(version('apsw').split('.')[:3])}, DuckDB {version('duckdb')}"


def _ray(settings: Settings) -> str:
    importlib.import_module("retinue.actors.runtime")
    where = cluster_address(settings)
    return f"Ray {version('ray')}, " + (f"joined at {where}" if where else "started when needed")


def _configuration(settings: Settings) -> str:
    if settings.file is None:
        return f"no {FILE} in {settings.folder} or above: the defaults are in force"
    return str(settings.file)


def _data_folder(settings: Settings) -> str:
    folder = _existing(settings.data_folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\n")
    except OSError as error:
        remedy = "change its owner, or name another in `data:`"
        raise _Wrong(f"{folder} cannot be written ({error.strerror}): {remedy}") from None
    return f"{settings.data_folder} can be written"


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(_existing(settings.data_folder)).free
    if free < ENOUGH_BYTES:
        raise _Wrong(f"{free / (1 << 30):.2f} GB free: free space, the store refuses new runs when the disk is full")
    return f"{free / (1 << 30):.0f} GB free"


def _policy(settings: Settings) -> str:
    gate = load_gate(settings.policy_folder, kill_switch=settings.kill_switch or False)
    where = settings.policy_folder or "the shipped defaults"
    if settings.kill_switch is not None and settings.kill_switch.exists():
        raise _Wrong(f"the kill switch {settings.kill_switch} is on: everything is denied until the file is removed")
    return f"{len(gate.rules)} rules from {where}, digest {gate.digest[:12]}"


def _modules(settings: Settings) -> str:
    if not settings.modules:
        return "none: name them in `modules:`"
    found = load_project(settings).registry
    return f"{', '.join(found.names()) or 'nothing to run'}; tools: {', '.join(sorted(found.tools)) or 'none'}"


def _pools(settings: Settings) -> str:
    """The pools that definitions need, each with the key that `actors.pools` knows it by."""
    pools = load_project(settings).registry.pools
    return f"runs, workers{''.join(f', {name}' for name in sorted(pools))}"


def _model(settings: Settings) -> str:
    models = load_project(settings).models
    models.check(settings.default_model)
    profile = models.profile(ModelRequest(model=settings.default_model, messages=()))
    return f"{settings.default_model}: {profile.provider}; the name is good, it was not called"


def _otlp(settings: Settings) -> str:
    if settings.otlp is None:
        return "not exported"
    if importlib.util.find_spec("opentelemetry.exporter") is None:
        raise _Wrong("`otlp:` is set, and the exporter is not installed: install retinue[otlp]")
    return f"exported to {settings.otlp}"


def _redaction(settings: Settings) -> str:
    missing = [name for name in settings.redact if not os.environ.get(name)]
    if missing:
        raise _Wrong(f"`redact:` names {', '.join(missing)}, which the environment does not have: nothing to mask")
    return f"the values of {len(settings.redact)} variables and known forms of credentials are masked"


def _runtime(settings: Settings) -> str:
    runtime = runtime_of(settings)
    if runtime is None:
        return "none lives: `run` and `batch` start their own"
    return f"lives on {runtime.node}, supervisor pid {runtime.pid}, Ray at {runtime.address}"


_CHECKS: dict[str, Callable[[Settings], str]] = {
    "python": _python,
    "libraries": _sqlite,
    "ray": _ray,
    "configuration": _configuration,
    "data folder": _data_folder,
    "disk": _disk,
    **STORE_CHECKS,
    "policy": _policy,
    "modules": _modules,
    "pools": _pools,
    "model": _model,
    "otlp": _otlp,
    "redaction": _redaction,
    "runtime": _runtime,
}


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: doctor makes none."""
    return next(place for place in (folder, *folder.parents) if place.exists())
