"""The costs the model is fed with, read from costs.json. Knows neither how they were measured nor the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("costs.json")


class BadCosts(ValueError):
    """costs.json misses a figure or holds a bad one; says which."""


@dataclass(frozen=True)
class Costs:
    """CPU in seconds on one core, sizes in bytes; one field for each figure of costs.json."""

    flush: float
    log_bandwidth: float
    loopback: float
    network: float
    disk_flush: float
    db_commit: float
    db_append: float
    db_trip: float
    db_settle: float
    db_lease: float
    db_lease_run: float
    db_spawn: float
    db_look: float
    db_tend: float
    db_host_row: float
    db_notify: float
    db_listener: float
    client_commit: float
    client_append: float
    client_trip: float
    client_spawn: float
    client_tend: float
    client_look: float
    loop_round: float
    loop_step: float
    loop_host_row: float
    log_bytes: float
    table_bytes: float
    waiting_bytes: float
    projector_frame: float
    actor_cpu: float
    head_actors: float
    ping: float


def load(path: Path = FILE) -> Costs:
    """The values of the file. BadCosts names a figure that is missing, unknown, without a source, or not positive."""
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return from_rows(rows)


def from_rows(rows: list[dict[str, Any]]) -> Costs:
    """See `load`."""
    wanted = {field.name for field in fields(Costs)}
    found = {row["name"]: row for row in rows}
    if missing := sorted(wanted - found.keys()):
        raise BadCosts(f"costs.json has no {', '.join(missing)}: run `make scale-costs`")
    if unknown := sorted(found.keys() - wanted):
        raise BadCosts(f"costs.json has {', '.join(unknown)}, which the model does not know: take them out")
    for name, row in found.items():
        if not row.get("from") or not row.get("unit"):
            raise BadCosts(f"{name}: a figure needs a unit and where it is from")
        if not isinstance(row["value"], int | float) or row["value"] <= 0:
            raise BadCosts(f"{name}: {row['value']!r} is no positive number")
    return Costs(**{name: float(row["value"]) for name, row in found.items()})


def merged(old: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The old figures in their order with those measured anew in their place; new ones at the end."""
    fresh = {row["name"]: row for row in measured}
    kept = [fresh.pop(row["name"], row) for row in old]
    return [*kept, *fresh.values()]
