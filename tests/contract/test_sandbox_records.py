"""Sandboxes in the store: written with the append that tells of them, fenced with it, and what keeps snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.doubles.places import REAL, Places
from tests.doubles.shapes import START, child_of, entries_of, host, new_run, opened, own, said

from retinue.runs.contracts import Status
from retinue.runs.control import SandboxQuery, SnapshotPin
from retinue.runs.errors import Fenced, InvalidInput, UnknownName
from retinue.runs.ownership import Spawn
from retinue.runs.sandboxes import SandboxRow, SandboxState, SandboxStatus
from retinue.store.store import Store

pytestmark = pytest.mark.promise("E2")

DAY = 86_400_000_000_000


@pytest.fixture(params=REAL)
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[Store]:
    with places.cleared(request.param) as place:
        async with opened(place) as store:
            assert isinstance(store, Store)
            await store.register(host())
            yield store


def row(name: str = "box-1", place: str = "", **changes: Any) -> SandboxRow:
    """A sandbox as its owner tells the store of it."""
    given: dict[str, Any] = {
        "sandbox_id": name,
        "name": "work",
        "manifest": "coder",
        "manifest_version": "m1",
        "profile": "strict",
        "profile_digest": "p1",
        "node": "here",
        "cause": "opened",
        "confinement": {"network": "enforced"},
        "omitted": ("cache",),
        "opened_at": START,
        "changed_at": START,
    }
    return SandboxRow(SandboxState(**given | changes), "t" * 32, place)


async def test_a_sandbox_is_there_with_the_append_that_tells_of_it(store: Store) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    await owner.append(said("opened"), sandboxes=(row(),))
    [found] = await store.sandbox_records.listed(SandboxQuery())
    assert (found.run_id, found.root_run_id, found.tenant_id, found.place) == ("first", "first", "acme", "box-1")
    assert (found.state, found.run_status) == (row().state, Status.in_progress)
    newer = row(generation=3, head_snapshot_id="s1-a", head_generation=3, must_recreate=True, changed_at=START + 1)
    await owner.append(said("snapshot"), sandboxes=(newer, row("box-2", "elsewhere", manifest="builder")))
    assert (await store.sandbox_records.get("box-1")).state == newer.state
    [other] = await store.sandbox_records.listed(SandboxQuery(manifest="builder"))
    assert (other.state.sandbox_id, other.place) == ("box-2", "elsewhere")


async def test_an_append_that_is_sent_again_changes_nothing(store: Store) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    sent = owner.make(said("opened"), sandboxes=(row(head_snapshot_id="s1-a"),))
    assert await store.append(sent) == await store.append(sent)
    assert len(await store.sandbox_records.listed(SandboxQuery())) == 1


async def test_who_is_fenced_changes_no_sandbox(store: Store) -> None:
    await store.submit([new_run("first")])
    old = await own(store, "first")
    await store.retire("h1")
    await store.register(host("h2"))
    [leased] = await store.lease(host("h2"), "runs", 1, START)
    assert leased.epoch == 2
    with pytest.raises(Fenced):
        await old.append(said("too late"), sandboxes=(row(head_snapshot_id="s1-a"),))
    assert await store.sandbox_records.listed(SandboxQuery()) == []
    assert await store.sandbox_records.in_use("acme", 0) == frozenset()


async def test_a_run_that_nobody_owns_ends_with_its_sandboxes_and_says_so_in_its_journal(store: Store) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    closed = row("box-3", status=SandboxStatus.closed, closed_at=START)
    await owner.append(said("opened"), sandboxes=(row(generation=2), row("box-2", "there"), closed))
    assert await owner.park(status=Status.waiting_for_input)
    await store.cancel("first", "ben", START + 9)
    found = await store.sandbox_records.listed(SandboxQuery())
    assert [one.state.closed_at for one in found] == [START, START + 9, START + 9]
    assert {(one.state.status, one.run_status) for one in found} == {(SandboxStatus.closed, Status.canceled)}
    *_, first, second, end = await entries_of(store, "first")
    assert [(entry.topic, entry.facts["event"], entry.facts["place"]) for entry in (first, second)] == [
        ("sandbox", "closed", "box-1"),
        ("sandbox", "closed", "there"),
    ]
    assert (first.facts["generation"], first.facts["status"], first.facts["cause"]) == (2, "closed", "the run ended")
    assert end.kind == "finished"
    assert (await store.get("first")).position == len(await entries_of(store, "first"))


async def test_sandboxes_are_found_by_run_root_status_and_a_part_of_their_id(store: Store) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await owner.append(said("spawns"), spawn=Spawn("g", (child_of("top", "g", 0),)), sandboxes=(row("aaaa-1"),))
    child = await own(store, "top-g-0")
    await child.append(said("opened"), sandboxes=(row("bbbb-1", status=SandboxStatus.lost),))
    below = await store.sandbox_records.listed(SandboxQuery(root_run_id="top"))
    assert [one.state.sandbox_id for one in below] == ["bbbb-1", "aaaa-1"]
    assert [one.state.sandbox_id for one in await store.sandbox_records.listed(SandboxQuery(run_id="top"))] == [
        "aaaa-1"
    ]
    [lost] = await store.sandbox_records.listed(SandboxQuery(status=SandboxStatus.lost))
    assert lost.root_run_id == "top"
    assert await store.sandbox_records.listed(SandboxQuery(tenant_id="nobody")) == []
    assert (await store.sandbox_records.get("bbbb")).state.sandbox_id == "bbbb-1"
    for unknown in ("zzzz", "bb", "-1"):
        with pytest.raises(UnknownName, match="retinue sandbox list"):
            await store.sandbox_records.get(unknown)
    with pytest.raises(InvalidInput):
        await store.sandbox_records.get("%%%%")


@pytest.mark.rule("R5")
async def test_every_snapshot_of_a_run_is_kept_until_some_time_after_its_end(store: Store) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    heads = [row(base_snapshot_id="s1-base", head_snapshot_id=f"s1-{name}") for name in "abc"]
    await owner.append(said("one append, three heads"), sandboxes=tuple(heads))
    everything = frozenset({"s1-base", "s1-a", "s1-b", "s1-c"})
    assert await store.sandbox_records.in_use("acme", START + DAY) == everything
    assert await store.sandbox_records.in_use("other", 0) == frozenset()
    await owner.finish()
    await store.sandbox_records.forget_uses(START + 1)
    assert await store.sandbox_records.in_use("acme", START + 1) == everything
    assert await store.sandbox_records.in_use("acme", START + 2) == frozenset()
    await store.sandbox_records.forget_uses(START + 2)
    assert await store.sandbox_records.in_use("acme", 0) == frozenset()


async def test_a_pin_keeps_a_snapshot_until_it_is_taken_out(store: Store) -> None:
    def pin(tenant: str, name: str, snapshot: str) -> SnapshotPin:
        return SnapshotPin(tenant_id=tenant, name=name, snapshot_id=snapshot, manifest="coder", at=START, by="ben")

    for each in (pin("acme", "base", "s1-a"), pin("acme", "base", "s1-b"), pin("zeta", "base", "s1-c")):
        await store.sandbox_records.pin(each)
    assert await store.sandbox_records.pins("acme") == [pin("acme", "base", "s1-b")]
    assert [each.tenant_id for each in await store.sandbox_records.pins()] == ["acme", "zeta"]
    assert await store.sandbox_records.in_use("acme", START) == frozenset({"s1-b"})
    assert (await store.sandbox_records.unpin("acme", "base")).snapshot_id == "s1-b"
    assert await store.sandbox_records.in_use("acme", START) == frozenset()
    with pytest.raises(UnknownName, match="no pin 'base'"):
        await store.sandbox_records.unpin("acme", "base")


async def test_a_node_is_told_which_workspaces_are_done_with(store: Store) -> None:
    await store.submit([new_run("first"), new_run("second")])
    owner = await own(store, "first")
    closed = row("closed", status=SandboxStatus.closed, closed_at=START)
    await owner.append(said("opened"), sandboxes=(row("open"), closed, row("moved", node="there")))
    names = ["open", "closed", "moved", "never"]
    assert await store.sandbox_records.done_with(names, "here") == ({"closed", "moved"}, {"never"})
    await owner.finish()
    assert await store.sandbox_records.done_with(names, "here") == ({"closed", "moved", "open"}, {"never"})


async def test_the_sandbox_that_took_a_snapshot_is_found_by_it(store: Store) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    await owner.append(said("opened"), sandboxes=(row("box-1", head_snapshot_id="s1-a"),))
    await owner.append(said("went on"), sandboxes=(row("box-2"), row("box-1", head_snapshot_id="s1-b")))
    for snapshot in ("s1-a", "s1-b"):
        found = await store.sandbox_records.sandbox_with("acme", snapshot)
        assert found is not None and found.run_id == "first"
    assert await store.sandbox_records.sandbox_with("acme", "s1-z") is None
    assert await store.sandbox_records.sandbox_with("zeta", "s1-a") is None
