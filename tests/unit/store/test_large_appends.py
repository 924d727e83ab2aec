"""What is large is encoded aside: the loop and other runs go on, and the same run's appends keep their order."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel, PrivateAttr, field_serializer
from tests.doubles.shapes import Owner, entries_of, host, new_run, own, said

from retinue.runs.errors import Fenced, StoreError
from retinue.store.appending import LARGE
from retinue.store.sqlite import SqliteStore

pytestmark = pytest.mark.rule("R3")
_BOUND = 20.0


class Slow(BaseModel):
    """A value whose encoding takes until somebody has rung, and cannot be waited for on a loop that has to ring."""

    text: str
    _rung: threading.Event = PrivateAttr(default_factory=threading.Event)

    @field_serializer("text")
    def _wait(self, text: str) -> str:
        assert self._rung.wait(_BOUND), "nobody could ring: the loop stood still"
        return text

    def ring(self) -> None:
        self._rung.set()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "data", patience=60.0)
    await store.register(host())
    yield store
    await store.close()


async def lead(store: SqliteStore, name: str) -> Owner:
    await store.submit([new_run(name)])
    return await own(store, name)


async def test_the_loop_and_other_runs_go_on_while_a_large_append_is_encoded(store: SqliteStore) -> None:
    one, other = await lead(store, "one"), await lead(store, "other")
    slow, bulk = Slow(text="at last"), "x" * (LARGE + 1)
    large = store.append(one.make(said("large", [slow, bulk])))
    one.position += 1
    small = store.append(one.make(said("small", 1)))
    await other.append(said("beside"))
    assert not large.done() and not small.done()
    slow.ring()
    assert [(await done).position for done in (large, small)] == [2, 3]
    assert [entry.content for entry in await entries_of(store, "one")][1:] == [[{"text": "at last"}, bulk], 1]


async def test_a_large_append_that_cannot_be_written_fails_alone(store: SqliteStore) -> None:
    owner = await lead(store, "one")
    large = store.append(owner.make(said("large", ["x" * (LARGE + 1), object()])))
    with pytest.raises(StoreError, match="cannot be journaled"):
        await large
    await owner.append(said("next"))
    old = owner.make(said("large", "x" * (LARGE + 1)), epoch=0)
    with pytest.raises(Fenced):
        await store.append(old)
    assert len(await entries_of(store, "one")) == 2


async def test_who_does_not_wait_any_more_undoes_nothing(store: SqliteStore) -> None:
    owner = await lead(store, "one")
    store.append(owner.make(said("large", "x" * (LARGE + 1)))).cancel()
    owner.position += 1
    await owner.append(said("next"))
    assert len(await entries_of(store, "one")) == 3
