"""A look at the breakers is shared by all who want one while it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from retinue.runs.breakers import BreakerPolicy
from retinue.store.breakers import StoreBreakers

OPEN = ("capability:mail", "open", 5, 0, 9_000, 1, "down")


class Table:
    """The rows of a store that takes its time; counts the looks."""

    def __init__(self) -> None:
        self.looks = 0
        self.rows: list[tuple[Any, ...]] = []
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def peek(self, operation: Callable[[Any], Any]) -> Any:
        self.looks += 1
        self.asked.set()
        found = list(self.rows)
        await self.may_answer.wait()
        return found

    async def submit(self, operation: Callable[[Any], Any]) -> Any:
        self.rows = [OPEN]
        return [("closed",)]


async def test_a_thousand_calls_at_once_look_once() -> None:
    table = Table()
    breakers = StoreBreakers(table.peek, table.submit, BreakerPolicy(), moment=60.0)
    calls = [asyncio.create_task(breakers.admit("capability:mail", 1)) for _ in range(1_000)]
    await asyncio.sleep(0)
    table.may_answer.set()
    assert await asyncio.gather(*calls) == [None] * 1_000
    assert table.looks == 1


async def test_what_was_looked_up_before_a_change_is_not_taken_for_what_is_there_after_it() -> None:
    table = Table()
    breakers = StoreBreakers(table.peek, table.submit, BreakerPolicy(), moment=60.0)
    before = asyncio.create_task(breakers.admit("capability:mail", 1))
    await table.asked.wait()
    await breakers._change(lambda connection: None)
    table.may_answer.set()
    assert await before is None
    assert await breakers.admit("capability:mail", 1) == 9_000
