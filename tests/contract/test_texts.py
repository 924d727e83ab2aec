"""Any text may be said or told, whatever a database thinks of it: NUL characters, quotes, marks of placeholders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from tests.doubles.places import KINDS, REAL, AnyStore, Places
from tests.doubles.shapes import START, child_of, entries_of, host, new_run, opened, own, said

from retinue.runs.contracts import PendingRequest, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import UnknownName
from retinue.runs.ownership import DeadLetter, Spawn

TEXTS = {
    "nul": "a\x00b",
    "quotes": 'it\'s "so" \\ `x`; --',
    "placeholders": "100 % %s %(name)s :name ? $1 {} ?? ::text",
    "wide": "żółć 猫 🐈‍⬛ ﷽ \u202e",
    "controls": "\t\r\n\x1b\x7f\x85\u2028",
    "long": "".join(sha256(str(number).encode()).hexdigest() for number in range(1_000)),
}
LONGEST_NAME = 500
"""Of what is a name: the indexes of databases hold no page of text."""


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[AnyStore]:
    with places.cleared(request.param) as place:
        async with opened(place) as store:
            await store.register(host())
            yield store


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest) -> str:
    return TEXTS[request.param]


@pytest.fixture
def name(text: str) -> str:
    return text[:LONGEST_NAME]


async def test_what_is_said_comes_back_as_it_was(store: AnyStore, text: str) -> None:
    await store.submit([new_run("top", {text: [text]}, input_id=text, principal_id=text)])
    owner = await own(store, "top")
    await owner.append(said(text, {"text": text, text: 1}))
    await store.signal("top", text, text, START)
    news = await store.look("top")
    assert [(event.name, event.value) for event in news.events] == [(text, text)]
    await owner.finish(text)
    accepted, record, _ = await entries_of(store, "top")
    assert (accepted.content, record.content) == ({text: [text]}, {"text": text, text: 1})
    result = await store.result("top")
    assert result is not None and result.value == text
    assert (await store.get("top")).status is Status.completed


async def test_names_and_keys_take_any_text(store: AnyStore, name: str) -> None:
    names = {"tenant_id": name, "idempotency_key": name, "queue": name, "target": name}
    [first] = await store.submit([new_run("top", **names)])
    [again] = await store.submit([new_run("again", **names)])
    assert (first.run_id, again.run_id) == ("top", "top")
    [leased] = await store.lease(host(), "runs", 1, START)
    assert (leased.request.tenant_id, leased.request.queue) == (name, name)


async def test_requests_letters_and_cancels_take_any_text(store: AnyStore, text: str, name: str) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    facts = {"capability": text, text: {"deep": text}, "doubt": text}
    given = {"request_id": "top-q", "run_id": "top", "root_run_id": "top", "tenant_id": "acme", "kind": "input"}
    asked = PendingRequest(**given, key=name, prompt=text, facts=facts, created_at=START)
    letter = DeadLetter(text, 1, text, text, START, text)
    child = child_of("top", name, 0, run_id="child")
    spawn = Spawn(name, (child,), (letter,), cursor={text: text}, exhausted=True, at=START)
    await owner.append(said("asks"), request=asked, spawn=spawn)
    [found] = await store.requests()
    assert (found.key, found.prompt, found.facts) == (name, text, facts)
    await store.resolve("top-q", "answered", text, START, text)
    news = await store.look("top")
    assert (news.answers[name].by, news.answers[name].value) == (text, text)
    assert news.groups[name].cursor == {text: text}
    [dead] = await store.dead_letters()
    assert (dead.source, dead.reason, dead.message, dead.content) == (text, text, text, text)
    await store.cancel("top", text, START)
    assert (await store.look("top")).cancel == text


@pytest.mark.parametrize("kind", REAL)
async def test_breakers_and_streams_take_any_text(places: Places, kind: str, text: str, name: str) -> None:
    with places.cleared(kind) as place:
        async with opened(place) as store:
            await store.register(host())
            await store.submit([new_run("top")])
            for _ in range(20):
                await store.breakers.failed(name, text, START)
            [listed] = await store.breakers.listed()
            assert (listed.name, listed.reason) == (name, text)
            await store.stream([("top", text, 1, text)])
            assert [(key, said) for _, key, _, said in await store.deltas("top", 0)] == [(text, text)]


async def test_a_name_that_nobody_has_is_found_by_nobody(store: AnyStore, text: str) -> None:
    assert await store.lease(host(), text, 1, START) == []
    assert await store.lease(host(), "", 1, START, only=text) == []
    assert await store.list_runs(RunQuery(parent_run_id=text)) == []
    with pytest.raises(UnknownName):
        await store.get(text)
