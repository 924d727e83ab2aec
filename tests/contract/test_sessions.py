"""Capability sessions in the store: written with the append that changes them, sealed where they are credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.doubles.places import KINDS, REAL, Places
from tests.doubles.shapes import START, AnyStore, child_of, entries_of, host, new_run, opened, own, said

from retinue.runs.contracts import Status
from retinue.runs.control import SessionQuery
from retinue.runs.errors import Fenced, InvalidInput, UnknownName
from retinue.runs.ownership import Spawn
from retinue.runs.sessions import CLOSE, Session, SessionRow, SessionStatus, Wire

pytestmark = pytest.mark.promise("D2", "D3")

WIRE = Wire(server="desk", transport="http", protocol="2025-11-25", session_id="wire-7", pins="p1", expires_at=START)
TOKEN = {"kind": "mrtr", "requestState": "a-state-that-nobody-may-read"}


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[AnyStore]:
    with places.cleared(request.param) as place:
        async with opened(place) as store:
            await store.register(host())
            yield store


def row(name: str = "session-1", tokens: Any = None, **changes: Any) -> SessionRow:
    """A session as its owner tells the store of it."""
    given = {"session_id": name, "server": "desk", "cause": "opened", "opened_at": START, "changed_at": START}
    return SessionRow(Session(**given | changes), "t" * 32, tokens or {})


async def test_a_session_is_there_with_the_append_that_tells_of_it(store: AnyStore) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    await owner.append(said("opened"), sessions=(row(),))
    [found] = await store.sessions(SessionQuery())
    assert (found.session_id, found.run_id, found.tenant_id, found.trace_id) == ("session-1", "first", "acme", "t" * 32)
    assert (found.status, found.transport, found.resumable) == (SessionStatus.in_progress, None, False)
    waits = row(tokens={"0/a#0": TOKEN}, wire=WIRE, status=SessionStatus.waiting_for_input, approval="pending")
    await owner.append(said("asked"), sessions=(waits, row("session-2", server="other")))
    newest = await store.session("session-1")
    assert (newest.status, newest.resumable, newest.approval) == (SessionStatus.waiting_for_input, True, "pending")
    assert (newest.wire_session_id, newest.pins, newest.expires_at) == ("wire-7", "p1", START)
    assert [one.session_id for one in await store.sessions(SessionQuery(server="other"))] == ["session-2"]


async def test_who_is_fenced_changes_no_session(store: AnyStore) -> None:
    await store.submit([new_run("first")])
    old = await own(store, "first")
    await store.retire("h1")
    await store.register(host("h2"))
    [leased] = await store.lease(host("h2"), "runs", 1, START)
    assert leased.epoch == 2
    with pytest.raises(Fenced):
        await old.append(said("too late"), sessions=(row(),))
    assert await store.sessions(SessionQuery()) == []


async def test_a_run_that_nobody_owns_ends_with_its_sessions_and_says_so_in_its_journal(store: AnyStore) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    sessions = (row(tokens={"k": TOKEN}, wire=WIRE), row("session-2", server="other"))
    await owner.append(said("opened"), sessions=sessions)
    assert await owner.park(status=Status.waiting_for_input)
    await store.cancel("first", "ben", START + 9)
    found = await store.sessions(SessionQuery())
    assert {(one.status, one.cause, one.closed_at, one.resumable) for one in found} == {
        (SessionStatus.closed, "the run ended", START + 9, False)
    }
    *_, first, second, end = await entries_of(store, "first")
    assert [first.facts["server"], second.facts["server"]] == ["desk", "other"]
    assert (first.facts["before"], first.facts["status"], first.facts["wire"]["pins"]) == (
        "in_progress",
        "closed",
        "p1",
    )
    record = await store.get("first")
    assert end.kind == "finished" and record.position == len(await entries_of(store, "first"))
    result = await store.result("first")
    assert result is not None and result.status is Status.canceled


async def test_sessions_are_found_by_run_root_status_and_a_part_of_their_id(store: AnyStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    await owner.append(said("spawns"), spawn=Spawn("g", (child_of("top", "g", 0),)), sessions=(row("aaaa-1"),))
    child = await own(store, "top-g-0")
    await child.append(said("opened"), sessions=(row("bbbb-1", status=SessionStatus.resumable),))
    below = await store.sessions(SessionQuery(root_run_id="top"))
    assert [one.session_id for one in below] == ["bbbb-1", "aaaa-1"]
    assert [one.session_id for one in await store.sessions(SessionQuery(run_id="top"))] == ["aaaa-1"]
    resumable = await store.sessions(SessionQuery(status=SessionStatus.resumable))
    assert [one.root_run_id for one in resumable] == ["top"]
    assert (await store.session("bbbb")).session_id == "bbbb-1"
    for unknown in ("zzzz", "bb", "-1"):
        with pytest.raises(UnknownName):
            await store.session(unknown)


async def test_who_closes_a_session_leaves_word_for_its_owner(store: AnyStore) -> None:
    await store.submit([new_run("first")])
    owner = await own(store, "first")
    await owner.append(said("opened"), sessions=(row(),))
    found = await store.close_session("session-1", "ben", START + 5)
    assert found.status is SessionStatus.in_progress, "only the owner moves it"
    [event] = (await store.look("first")).events
    assert (event.name, event.value) == (CLOSE, {"session_id": "session-1", "by": "ben"})
    closed = row(status=SessionStatus.closed, cause="closed by ben", closed_at=START + 6)
    await owner.append(said("closed"), sessions=(closed,))
    with pytest.raises(InvalidInput, match="closed already"):
        await store.close_session("session-1", "ben", START + 7)
    assert await store.sessions(SessionQuery(open_only=True)) == []


@pytest.mark.rule("R6")
@pytest.mark.parametrize("kind", REAL)
async def test_what_a_call_goes_on_with_is_sealed(kind: str, places: Places) -> None:
    with places.cleared(kind) as place:
        async with opened(place) as store:
            await store.register(host())
            await store.submit([new_run("first")])
            owner = await own(store, "first")
            await owner.append(said("kept", {"token": TOKEN}), sessions=(row(tokens={"k": TOKEN}),))
            query = "SELECT sealed FROM capability_sessions"
            [[sealed]] = await store._read(lambda connection: list(connection.execute(query)))
            assert b"nobody-may-read" not in bytes(sealed)
            opened_again = store._codec.open("acme", bytes(sealed), "session:session-1")
            assert opened_again == {"k": TOKEN}
            assert "nobody-may-read" not in str(await store.session("session-1"))
