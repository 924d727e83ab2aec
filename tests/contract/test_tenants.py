"""Tenants in the store: who has runs that go on, and the runs that tell of an erasure, which hold no content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.doubles.places import REAL, Places
from tests.doubles.shapes import START, entries_of, host, new_run, opened, own

from retinue.runs.contracts import Status
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import Record
from retinue.runs.ownership import NewRun
from retinue.store.store import Store

pytestmark = pytest.mark.promise("I6")


@pytest.fixture(params=REAL)
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[Store]:
    with places.cleared(request.param) as place:
        async with opened(place) as store:
            assert isinstance(store, Store)
            await store.register(host())
            yield store


def telling(run_id: str) -> NewRun:
    """A run of another tenant that tells that acme was erased."""
    request = new_run(run_id).request.model_copy(update={"tenant_id": "desk"})
    record = Record(at=START, topic="erasure", by="runtime", facts={"name": "acme", "event": "begun"})
    return NewRun(request, None, START, past=(record,))


async def test_a_tenant_with_runs_that_go_on_is_not_told_to_be_erased(store: Store) -> None:
    await store.submit([new_run("first"), new_run("second")])
    assert await store.tenants.counts() == {"acme": (2, 2)}
    with pytest.raises(InvalidInput, match=r"2 runs of it have \(first, second, ...\) not ended; `retinue cancel RUN`"):
        await store.tenants.tell(telling("told"), of="acme")
    await (await own(store, "first")).finish()
    with pytest.raises(InvalidInput, match="run second of it has not ended"):
        await store.tenants.refuse_open("acme")
    await (await own(store, "second")).finish()
    await store.tenants.refuse_open("acme")
    assert await store.tenants.counts() == {"acme": (2, 0)}


async def test_what_tells_of_an_erasure_is_over_and_makes_no_key(store: Store) -> None:
    await store.tenants.tell(telling("told"), of="acme")
    assert (await store.get("told")).status is Status.completed
    assert [entry.kind for entry in await entries_of(store, "told")] == ["accepted", "record", "finished"]
    assert await asyncio.to_thread(store.vault.tenants) == []
    assert await store.tenants.counts() == {"desk": (1, 0)}
