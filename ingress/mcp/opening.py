"""Reaching the project's runs while the server already speaks: a runtime takes seconds, a client will not wait.

Owns the connection to the project for as long as the server serves. Knows no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from retinue.host.settings import Settings
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.runs.errors import StoreBusy

_PATIENCE = 120.0


class Opening:
    """The client of a project, soon. `hold` opens it and keeps it; `client` waits until it is there."""

    def __init__(self, settings: Settings, *, local: bool) -> None:
        self._settings = settings
        self._local = local
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()

    async def hold(self) -> None:
        """Open the client and keep it until cancelled. Raises what `connect` raises."""
        async with connect(settings=self._settings, local=self._local) as client:
            self._client.set_result(client)
            await asyncio.Event().wait()

    async def client(self) -> Client:
        """The client. StoreBusy when it is not there in two minutes."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._client)
        except TimeoutError:
            raise StoreBusy(f"the runtime is still starting after {_PATIENCE:g} s: ask again") from None


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run them together until one ends, then end the others; raises what the first raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
