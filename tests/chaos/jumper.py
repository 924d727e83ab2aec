"""A host whose wall clock jumps: `python -m tests.chaos.jumper FOLDER SEED SECONDS`. Prints `serving`.

The clock of a host is one function, taken when its modules are imported; here it is another one. It serves the
pools of the runtime beside it, so it takes runs over and gives them back with its clock up to 20 s off.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from retinue.host import clock

_MOST = 20.0
_EVERY_NS = 300_000_000


class Jumping:
    """The time, off by an amount that is drawn anew every 0.3 s: mostly a jump forth or back."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._real = clock.now_ns
        self._until = 0
        self._off = 0

    def __call__(self) -> int:
        now = time.monotonic_ns()
        if now > self._until:
            self._until = now + _EVERY_NS
            self._off = int(self._chance.choice([0.0, 0.5, -0.5, _MOST, -_MOST]) * 1e9)
        return self._real() + self._off


def install(seed: int) -> None:
    """Must come before the first import of what takes the clock."""
    assert "retinue.host.hosting" not in sys.modules, "the clock was taken already"
    clock.now_ns = Jumping(seed)


async def main(folder: str, seconds: str) -> None:
    """Serve for a while, then give everything back."""
    from retinue.host.composition import load_project, make_host, open_store  # noqa: PLC0415 - after the clock
    from retinue.host.hosting import HostShape  # noqa: PLC0415
    from retinue.host.settings import load_settings  # noqa: PLC0415

    settings = load_settings(Path(folder))
    store = open_store(settings)
    shape = HostShape(("runs", "workers"), capacity=32, lease_seconds=settings.actors.lease_seconds)
    host = make_host(load_project(settings), store, shape, "jumper")
    asyncio.get_running_loop().call_later(float(seconds), host.stop)
    print("serving", flush=True)
    await host.serve()
    await store.close()


if __name__ == "__main__":
    install(int(sys.argv[2]))
    asyncio.run(main(sys.argv[1], sys.argv[3]))
