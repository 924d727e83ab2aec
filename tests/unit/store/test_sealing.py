"""Content is sealed under its tenant's key: unreadable on disk, closed to others, gone with the key."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.doubles.places import Place, Places
from tests.doubles.postgres import PostgresServer
from tests.doubles.shapes import START, child_of, entries_of, host, new_run, own, said
from tests.doubles.worlds import World, calls, world

from retinue.runs.contracts import ErrorInfo, PendingRequest
from retinue.runs.definitions import agent
from retinue.runs.errors import StoreError
from retinue.runs.journal import Attempt, Record
from retinue.runs.ownership import DeadLetter, Spawn
from retinue.sessions.native import tool
from retinue.store import sealing
from retinue.store.blobs import FolderBlobs
from retinue.store.frames import FrameCodec
from retinue.store.sealing import KeyFolder, Vault
from retinue.store.sqlite import SqliteStore
from retinue.store.store import Store

pytestmark = [pytest.mark.rule("R6"), pytest.mark.promise("I6")]

WORD = "xylophone-7431"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "data")
    await store.register(host())
    yield store
    await store.close()


def on_disk(folder: Path, *words: str) -> dict[str, list[str]]:
    """Which of the words stand in which file, as bytes in any usual encoding."""
    found: dict[str, list[str]] = {}
    for path in (path for path in folder.rglob("*") if path.is_file() and "keys" not in path.parts):
        raw = path.read_bytes()
        for word in words:
            if word.encode() in raw or word.encode("utf-16-le") in raw or word.encode().hex().encode() in raw:
                found.setdefault(path.name, []).append(word)
    return found


async def say_everything(store: Store) -> None:
    """The word in whatever a run, its owner and others say."""
    await store.submit([new_run("top", {"question": f"{WORD}-input"})])
    owner = await own(store, "top")
    asked = PendingRequest(
        request_id="q",
        run_id="top",
        root_run_id="top",
        tenant_id="acme",
        kind="input",
        key="k",
        prompt=f"{WORD}-prompt",
        created_at=START,
    )
    letter = DeadLetter("rows", 1, "not_json", "line 1", START, f"{WORD}-letter")
    transcript = {"messages": [{"role": "user", "content": f"{WORD}-message"}]}
    await owner.append(
        said("small", f"{WORD}-small"), said("large", f"{WORD}-large" * 10_000), said("talk", transcript)
    )
    spawn = Spawn("g", (child_of("top", "g", 0),), (letter,))
    await owner.append(said("x"), spawn=spawn, request=asked)
    await store.resolve("q", "answered", "bob", START, f"{WORD}-answer")
    await store.signal("top", "go", f"{WORD}-event", START)
    await store.stream([("top", "k", 1, f"{WORD}-delta")])
    await owner.finish(f"{WORD}-output")
    contents = str([entry.content for entry in await entries_of(store, "top")])
    assert all(f"{WORD}-{part}" in contents for part in ("small", "large", "message", "output"))
    assert [text for *_, text in await store.deltas("top", 0)] == [f"{WORD}-delta"]


async def test_nothing_that_was_said_stands_in_any_file(store: SqliteStore) -> None:
    await say_everything(store)
    assert len(list((store.folder / "blobs").rglob("*"))) >= 2
    assert on_disk(store.folder, WORD) == {}


async def test_neither_words_nor_keys_stand_in_any_file_of_a_database(
    places: Places, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_KEY", "trombone-9482")
    with places.new("postgres") as place:
        store = place.open(key="${STORE_KEY}")
        await store.register(host())
        await say_everything(store)
        raw = await asyncio.to_thread(store._codec.vault._store.load, "acme")
        assert raw is not None
        await store.close()
        await asyncio.to_thread(postgres.restart)
        assert on_disk(postgres.folder, WORD, "trombone-9482") == {}
        assert not any(raw in path.read_bytes() for path in postgres.folder.rglob("*") if path.is_file())
        for key, told in ((None, "wrapped"), ("another", "does not open")):
            other = place.open(key=key)
            with pytest.raises(StoreError, match=told):
                await entries_of(other, "top")
            await other.close()


async def test_destroying_a_key_in_a_database_erases_content_and_leaves_the_facts(places: Places) -> None:
    with places.new("postgres") as place:
        store = place.open()
        await store.register(host())
        await say_everything(store)
        await asyncio.to_thread(store._codec.vault.destroy, "acme")
        await store.close()
        again = place.open()
        entries = await entries_of(again, "top")
        assert {entry.content for entry in entries} == {None}
        assert [entry.kind for entry in entries][-1] == "finished"
        assert (await again.get("top")).status == "completed"
        await again.close()


async def test_a_key_that_another_process_destroyed_is_let_go_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process that lives long would go on opening what was erased, and sealing what nobody else can open."""
    store, other = place.open(), place.open()
    await store.submit([new_run("top", {"question": WORD})])
    assert [entry.content for entry in await entries_of(other, "top")] == [{"question": WORD}]
    await asyncio.to_thread(store._codec.vault.destroy, "acme")
    assert [entry.content for entry in await entries_of(other, "top")] == [{"question": WORD}]
    monkeypatch.setattr(sealing, "OLDEST", 0.0)
    assert [entry.content for entry in await entries_of(other, "top")] == [None]
    await other.submit([new_run("next", {"question": WORD})])
    assert [entry.content for entry in await entries_of(store, "next")] == [{"question": WORD}]
    await store.close()
    await other.close()


async def test_what_was_erased_reads_so_though_the_tenant_has_a_new_key(place: Place) -> None:
    """A tenant that comes back has a key of its own; what was before it is not taken for damage."""
    store = place.open()
    await store.register(host())
    await say_everything(store)
    await asyncio.to_thread(store._codec.vault.destroy, "acme")
    await store.submit([new_run("next", {"question": WORD})])
    other = place.open()
    for each in (store, other):
        assert {entry.content for entry in await entries_of(each, "top")} == {None}
        assert [entry.content for entry in await entries_of(each, "next")] == [{"question": WORD}]
        assert (await each.get("top")).status == "completed"
        ended = await each.result("top")
        assert ended is not None and (ended.value, ended.facts) == (None, {"erased": True})
        assert {frame.erased async for frame in each.read("next")} == {False}
        assert [frame.erased async for frame in each.read("top")] == [True, True, False, True], "one had no content"
        assert [text for *_, text in await each.deltas("top", 0)] == [""]
        [request] = await each.requests(open_only=False)
        assert request.prompt == "(content erased)"
        [letter] = await each.dead_letters("top", 10)
        assert letter.content is None
    await store.close()
    await other.close()


async def test_damage_to_what_followed_an_erasure_is_still_told(place: Place) -> None:
    store = place.open()
    vault = store._codec.vault
    seal = functools.partial(asyncio.to_thread, vault.seal, "acme")
    first = await seal(b"first", b"place")
    assert await asyncio.to_thread(vault.destroy, "acme")
    second = await seal(b"second", b"place")
    opened = functools.partial(asyncio.to_thread, vault.open, "acme")
    assert await opened(first, b"place") is None
    assert await opened(second, b"place") == b"second"
    for damaged, bound_to in ((second[:-1] + bytes([second[-1] ^ 1]), b"place"), (second, b"elsewhere")):
        with pytest.raises(StoreError, match="does not open with its key"):
            await opened(damaged, bound_to)
    await store.close()


async def test_a_process_with_the_old_key_in_hand_reads_what_the_new_one_sealed(place: Place) -> None:
    store, other = place.open(), place.open()
    await store.submit([new_run("top", {"question": WORD})])
    assert [entry.content for entry in await entries_of(other, "top")] == [{"question": WORD}]
    await asyncio.to_thread(store._codec.vault.destroy, "acme")
    await store.submit([new_run("next", {"question": WORD})])
    assert [entry.content for entry in await entries_of(other, "next")] == [{"question": WORD}]
    assert [entry.content for entry in await entries_of(other, "top")] == [None], "it has let go of the old one"
    await store.close()
    await other.close()


@pytest.mark.parametrize("given", [{"question": WORD}, None])
async def test_no_key_is_looked_up_on_the_loop(place: Place, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer would stop all that the process does."""
    here, threads = threading.get_ident(), set()
    store = place.open()
    keys = store._codec.vault._store
    for name in ("load", "create"):
        asked = getattr(keys, name)
        monkeypatch.setattr(
            keys, name, lambda tenant, asked=asked: (threads.add(threading.get_ident()), asked(tenant))[1]
        )
    await store.register(host())
    await store.submit([new_run("top", given)])
    monkeypatch.setattr(store._codec.vault, "_keys", {})
    owner = await own(store, "top")
    await owner.append(said("something", WORD))
    assert threads and here not in threads
    await store.close()


@tool(side_effect="read")
def look_up(name: str) -> str:
    """Look something up."""
    return f"{name} plays {WORD}-result"


async def test_nothing_an_agent_saw_or_said_stands_in_any_file(tmp_path: Path) -> None:
    reader = agent("reader", f"You know the {WORD}-instructions.", tools=[look_up], asks=True)
    async with world("sqlite", tmp_path, reader) as made:
        made.decide(
            calls("look_up", name=f"{WORD}-argument"), {"ask_human": f"{WORD}-ask"}, {"answer": f"{WORD}-answer"}
        )
        run_id = await made.submit(reader, f"{WORD}-question")
        await made.settle()
        await resolve_all(made, f"{WORD}-human")
        result = await made.finish(run_id)
        assert result.value == f"{WORD}-answer"
        said_there = str([entry.content for entry in await made.entries(run_id)])
        for part in ("instructions", "argument", "result", "ask", "human", "question"):
            assert f"{WORD}-{part}" in said_there
    assert on_disk(tmp_path / "data", WORD) == {}


async def resolve_all(made: World, value: str) -> None:
    for request in await made.store.requests():
        await made.store.resolve(request.request_id, "answered", "bob", START, value)


async def test_destroying_a_key_erases_content_and_leaves_the_facts(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data")
    await store.register(host())
    for tenant in ("acme", "globex"):
        await store.submit([new_run(tenant, f"input of {tenant}", tenant_id=tenant)])
        owner = await own(store, tenant)
        transcript = {"messages": [{"role": "user", "content": "hello"}]}
        await owner.append(said("small", "s"), said("large", "x" * 100_000), said("talk", transcript))
        await owner.finish("output")
    await store.close()
    assert Vault(KeyFolder(tmp_path / "data" / "keys")).destroy("acme")
    assert not Vault(KeyFolder(tmp_path / "data" / "keys")).destroy("acme")
    store = SqliteStore(tmp_path / "data")
    erased, kept = await entries_of(store, "acme"), await entries_of(store, "globex")
    assert [entry.content for entry in erased] == [None] * 5
    assert [entry.kind for entry in erased] == [entry.kind for entry in kept]
    assert [getattr(entry, "topic", None) for entry in erased[1:4]] == ["small", "large", "talk"]
    result = await store.result("acme")
    assert result is not None and (result.ok, result.value) == (True, None)
    assert (await store.get("acme")).status == "completed"
    assert kept[2].content == "x" * 100_000
    await store.close()


@pytest.mark.rule("R16")
def test_a_blob_is_stored_once_under_its_address(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    blobs = FolderBlobs(tmp_path / "blobs", vault)
    address = vault.address("acme", b"data").hex()
    blobs.put("acme", address, b"data")
    [path] = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    first = path.stat().st_mtime_ns
    blobs.put("acme", address, b"data")
    assert path.name == address and path.stat().st_mtime_ns == first
    assert blobs.get("acme", address) == b"data"
    with pytest.raises(StoreError, match="0000 is missing from"):
        blobs.get("acme", "0" * 40)


async def test_a_transcript_is_stored_once_however_often_it_is_repeated(store: SqliteStore) -> None:
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    messages = [{"role": "user", "content": f"message {n}"} for n in range(10)]
    for turn in range(1, 10):
        await owner.append(said("talk", {"messages": messages[: turn + 1]}))
    rows = await store._read(lambda c: c.execute("SELECT count(*) FROM contents").fetchall())
    assert rows == [(10,)]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


wrong = ErrorInfo(reason="tool_failure", code="x", message="words")
marks = st.sampled_from(["$blob", "$plain", "$said", "$shared", "messages", "content"])
marked = st.recursive(
    st.sampled_from(["../../../etc/hostname", "x", 1]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(marks, inner, min_size=1, max_size=2),
    max_leaves=6,
)


@given(json_values | marked)
def test_any_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.getbasetemp() / "codec"
    vault = Vault(KeyFolder(folder / "keys"))
    codec = FrameCodec(vault, FolderBlobs(folder / "blobs", vault))
    failed = Attempt(at=START, key="k", number=1, error=wrong, not_before=START, content=value)
    encoded = codec.encode("acme", "run:1", (said("x", value), failed))
    codec.keep("acme", encoded.blobs)
    rows = dict(encoded.shared)
    first, second = codec.decode("acme", "run:1", (1, encoded.facts, encoded.sealed), rows.get)
    assert (first.content, second) == (value, failed)


def test_a_fact_that_is_no_text_is_told_as_it_can_be_printed(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    codec = FrameCodec(vault, FolderBlobs(tmp_path / "blobs", vault))
    record = Record(at=START, topic="sandbox", by="runtime", facts={"cause": "a\udcff", "é\udcfe": ["\ud800", 1]})
    encoded = codec.encode("acme", "run:1", (record,))
    [found] = codec.decode("acme", "run:1", (1, encoded.facts, encoded.sealed), lambda _: None)
    assert isinstance(found, Record) and found.facts == {"cause": "a\\udcff", "é\\udcfe": ["\\ud800", 1]}


@tool(side_effect="read")
def trip(name: str) -> str:
    """Fails, and says about what."""
    raise ValueError(f"cannot find {name}")


class Typed(BaseModel):
    count: int


async def test_no_error_tells_what_was_said(tmp_path: Path) -> None:
    reader = agent("reader", "Read.", tools=[trip, look_up], output=Typed, corrections=1)
    async with world("sqlite", tmp_path, reader) as made:
        wrong = {"tool_calls": [{"name": "look_up", "arguments": {"name": [f"{WORD}-wrong"]}}]}
        garbled = {"tool_calls": [{"name": "look_up", "raw": f"{WORD}-garbled"}]}
        rejected = {"answer": {"count": f"{WORD}-rejected"}}
        made.decide(calls("trip", name=f"{WORD}-trip"), wrong, garbled, rejected)
        result = await made.run(reader, "go")
        entries = await made.entries(result.run_id)
    assert on_disk(tmp_path / "data", WORD) == {}
    assert result.error is not None and f"{WORD}-rejected" in result.error.message
    told = " ".join(entry.error.message for entry in entries if getattr(entry, "error", None))
    told += str([entry.facts.get("errors") for entry in entries if entry.kind == "record"])
    for part in ("trip", "wrong", "garbled", "rejected"):
        assert f"{WORD}-{part}" in told


async def test_an_erased_error_keeps_its_code(tmp_path: Path) -> None:
    reader = agent("reader", "Read.", tools=[trip])
    async with world("sqlite", tmp_path, reader) as made:
        made.decide({"fault": {"kind": "permanent"}})
        run_id = (await made.run(reader, "go")).run_id
    Vault(KeyFolder(tmp_path / "data" / "keys")).destroy("acme")
    store = SqliteStore(tmp_path / "data")
    result = await store.result(run_id)
    assert result is not None and result.error is not None
    assert (result.error.reason, result.error.code, result.error.message) == (
        "model_failure",
        "scripted",
        "(content erased)",
    )
    await store.close()
