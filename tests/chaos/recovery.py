"""How long it takes after the loss of an actor that holds a thousand runs until all of them run again.

Measured on the runtime as it is after everything that happened to it.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass

from tests.chaos.look import HostSeen
from tests.chaos.scene import PATIENCE, Scene, send, until
from tests.chaos.world import LEASE

from retinue import Client

RUNS = 1_000


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds until all runs had a new owner, and until the call that each was in the middle of was made again."""

    owned: float
    called: float

    @property
    def in_time(self) -> bool:
        """Whether all were running again within two lease periods."""
        return self.called <= 2 * LEASE


def late(found: Recovery | None) -> list[str]:
    """A finding, when it took too long."""
    if found is None or found.in_time:
        return []
    return [f"recovery: {RUNS} runs were back after {found.called:.1f} s, which is not within two leases"]


async def measure(scene: Scene, client: Client, accepted: list[str]) -> Recovery | None:
    """Fill a RunActor, kill it, take the time, let the runs end. None when it could not be filled or recovered."""
    go = scene.world.log.with_suffix(".go")
    for number in range(RUNS):
        accepted.append((await client.submit("held", {"n": number})).run_id)
    host = await until(lambda: _full(scene), PATIENCE)
    if not isinstance(host, HostSeen):
        return None
    begun = time.monotonic()
    send(host.pid, signal.SIGKILL)
    if not await until(lambda: scene.look.in_progress("held", host.number) >= RUNS, PATIENCE):
        return None
    owned = time.monotonic() - begun
    await until(lambda: _calls(scene, host.pid) >= RUNS, PATIENCE)
    called = time.monotonic() - begun
    go.touch()
    ended = "SELECT count(*) FROM runs WHERE target = 'held' AND final IS NULL"
    await until(lambda: scene.look.ask(ended)[0][0] == 0, PATIENCE)
    return Recovery(owned, called)


def _full(scene: Scene) -> HostSeen | None:
    """The host that has all the runs, each in the middle of its call."""
    for host in scene.look.hosts("run"):
        if scene.look.in_progress("held") >= RUNS <= len(host.holds) and _calls(scene, None) >= RUNS:
            return host
    return None


def _calls(scene: Scene, not_by: int | None) -> int:
    """How many runs have made their call, in another process than that one."""
    lines = [json.loads(line) for line in scene.world.log.read_text().splitlines() if '"held"' in line]
    return len({line["run"] for line in lines if line["pid"] != not_by})
