"""Shared looks: one look answers all who come while it is under way, whatever becomes of who began it."""

from __future__ import annotations

import asyncio

import pytest

from retinue.store.looks import SharedLook


class Slow:
    """A look that ends when it is told to; counts its beginnings."""

    def __init__(self) -> None:
        self.looks = 0
        self.said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def look(self) -> str:
        self.looks += 1
        return await asyncio.shield(self.said)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_look_answers_all_who_come_meanwhile_and_those_of_the_moment_after() -> None:
    slow = Slow()
    shared = SharedLook(slow.look, 60.0)
    asking = [asyncio.create_task(shared.get()) for _ in range(10)]
    await settled()
    slow.said.set_result("there")
    assert list(await asyncio.gather(*asking)) == ["there"] * 10
    assert (await shared.get(), slow.looks) == ("there", 1)


async def test_what_waits_for_nothing_is_found_without_a_turn_of_the_loop() -> None:
    async def look() -> str:
        return "there"

    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert await SharedLook(look, 0.0).get() == "there"
    assert turns == []


async def test_who_is_cancelled_takes_nobody_along() -> None:
    slow = Slow()
    shared = SharedLook(slow.look, 60.0)
    asking = [asyncio.create_task(shared.get()) for _ in range(4)]
    await settled()
    asking[0].cancel()
    asking[2].cancel()
    await settled()
    slow.said.set_result("there")
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(one) for one in found] == ["", "there", "", "there"]
    assert slow.looks == 2


async def test_a_look_that_fails_fails_for_all_who_wait_and_the_next_one_looks_again() -> None:
    slow = Slow()
    shared = SharedLook(slow.look, 60.0)
    asking = [asyncio.create_task(shared.get()) for _ in range(3)]
    await settled()
    slow.said.set_exception(OSError("no"))
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in found] == [OSError] * 3
    with pytest.raises(OSError, match="no"):
        await shared.get()
    assert slow.looks == 2


async def test_what_was_being_looked_up_at_a_change_does_not_count_after_it() -> None:
    slow = Slow()
    shared = SharedLook(slow.look, 60.0)
    before = asyncio.create_task(shared.get())
    await settled()
    shared.forget()
    after = asyncio.create_task(shared.get())
    await settled()
    slow.said.set_result("there")
    assert list(await asyncio.gather(before, after)) == ["there", "there"]
    assert slow.looks == 2
