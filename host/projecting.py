"""The duty of projection: journal to trace tables and OTLP, for ever, in the process that has the tables.

Knows no Ray and no run in progress.
"""

from __future__ import annotations

import asyncio
import logging

from retinue.runs.errors import StoreError
from retinue.traces.room import Traces

_LOG = logging.getLogger("retinue.host")
_IDLE = 0.2
_AFTER_FAULT = 2.0


async def project_for_ever(traces: Traces) -> None:
    """Project and export whatever there is; a fault costs time, not rows."""
    while True:
        try:
            moved = await traces.project()
            moved += await traces.export()
        except StoreError as error:
            _LOG.warning("traces lag behind: %s", error)
            await asyncio.sleep(_AFTER_FAULT)
            continue
        if not moved:
            await asyncio.sleep(_IDLE)


async def catch_up(traces: Traces) -> int:
    """Project until nothing is left; returns the frames projected."""
    total = 0
    while moved := await traces.project():
        total += moved
    return total
