"""What users do meanwhile: submit, repeat a submission, answer, approve, send events, cancel. All of it at random.

Keeps what was acknowledged, for the judge. Talks to the store through a client that hosts nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tests.chaos import work

from retinue import Client
from retinue.runs.errors import InvalidInput, RetinueError, StoreError

_EVERY = 0.1
_LEAVE = 17
"""One question in so many is left without an answer: its run has to wait for it in the end."""


class Load:
    """`accepted` and `canceled` are ids of runs for which the store said yes."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self._client = client
        self._chance = chance
        self._number = 0
        self._deaf: set[str] = set()
        self._events: dict[str, int] = {}
        self.accepted: list[str] = []
        self.canceled: list[str] = []
        self.doubles: list[str] = []
        self.refused = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Do something again and again, until told to stop."""
        while not stopping.is_set():
            await self._try(self._submit)
            await self._try(self.answer)
            await self._try(self._signal)
            if self.accepted and self._chance.random() < 0.08:
                await self._try(self._cancel)
            await asyncio.sleep(_EVERY * self._chance.uniform(0.5, 1.5))

    async def answer(self) -> None:
        """Answer what is asked, but for a few."""
        for request in await self._client.inbox():
            if request.prompt.startswith("say") and int(request.prompt.split()[1]) % _LEAVE == 0:
                continue
            try:
                if request.kind == "input":
                    await self._client.answer(request.request_id, self._chance.randint(1, 9), by="ben")
                elif self._chance.random() < 0.8:
                    await self._client.approve(request.request_id, by="ben")
                else:
                    await self._client.deny(request.request_id, by="ben", why="chance")
            except InvalidInput:
                self.refused += 1  # it was canceled in the meantime

    async def finish(self) -> None:
        """Send the events that are still missing, but for those nobody will send."""
        for run_id in list(self._events):
            while self._events.get(run_id):
                await self._send(run_id)

    async def _try(self, act: Callable[[], Any]) -> None:
        """A store that is full or busy is told to users; they try again."""
        try:
            await act()
        except StoreError:
            self.refused += 1
            await asyncio.sleep(0.5)

    async def _submit(self) -> None:
        self._number += 1
        target, given = self._draw(self._number)
        key = f"load-{self._number}"
        while True:
            try:
                run_id = (await self._client.submit(target, given, idempotency_key=key)).run_id
                break
            except StoreError:
                self.refused += 1
                await asyncio.sleep(0.5)
        self.accepted.append(run_id)
        if target == "listener":
            self._events[run_id] = 2 if self._number % _LEAVE else 1
        if self._chance.random() < 0.2:
            again = (await self._client.submit(target, given, idempotency_key=key)).run_id
            if again != run_id:
                self.doubles.append(f"{key} gave {run_id} and {again}")

    def _draw(self, number: int) -> tuple[str, Any]:
        chance = self._chance
        target = chance.choice(["fan", "fan", "asker", "listener", "sleeper", "counter", "clerk", "miser"])
        given: dict[str, Any] = {"n": number}
        if target == "fan":
            given |= {"width": chance.randint(2, 12), "join": chance.choice(sorted(work.JOINS))}
        elif target == "sleeper":
            given |= {"pause": chance.choice([0.3, 2, 6, 9])}
        elif target == "counter":
            given |= {"limit": chance.randint(2, 9)}
        return target, f"file number {number}" if target in ("clerk", "miser") else given

    async def _signal(self) -> None:
        waiting = [run_id for run_id, left in self._events.items() if left]
        if waiting:
            await self._send(self._chance.choice(waiting))

    async def _send(self, run_id: str) -> None:
        try:
            await self._client.signal(run_id, "go", self._events[run_id])
            self._events[run_id] -= 1
        except StoreError:
            raise
        except RetinueError:
            del self._events[run_id]  # it was canceled

    async def _cancel(self) -> None:
        run_id = self._chance.choice(self.accepted[-40:])
        await self._client.cancel(run_id, by="ben")
        self.canceled.append(run_id)
