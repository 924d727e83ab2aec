"""Memories at rest: no word without the tenant's key, erased with it, fenced from owners of old, ranked by words."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.doubles.places import REAL, Place, Places
from tests.doubles.shapes import START, host, new_run, own

from retinue.runs.errors import Fenced, PermanentError
from retinue.runs.memories import Memory, Recall, Space
from retinue.store import memories
from retinue.store.memories import Listing, rank
from retinue.store.store import Store

AGENT = Space(scope="agent", owner="clerk")
WORDS = "The combination of the safe is zanzibar."


def memory(number: int, content: str = WORDS, **changes: object) -> Memory:
    """A memory of the clerk."""
    given = {"memory_id": f"{number:032x}", "space": AGENT, "content": content, "at": START + number, "run_id": "r"}
    given |= {"step": "0/remember#0", "agent": "clerk", "version": "1", "principal": "ana"}
    return Memory.model_validate(given | changes)


async def found(store: Store, text: str, tenant: str = "acme") -> list[str]:
    """The ids of what is recalled, as numbers."""
    wanted = Recall(spaces=(AGENT,), text=text, at=START + 10**9, k=100)
    return [str(int(one.memory_id, 16)) for one in await store.memories.recall(tenant, wanted)]


def bytes_of(place: Place) -> bytes:
    """Everything that an embedded store has written."""
    return b"".join(path.read_bytes() for path in sorted((place.folder / "data").rglob("store.db*")))


@pytest.mark.promise("G2")
@pytest.mark.rule("R6")
async def test_no_word_key_or_tag_stands_in_the_store(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path)
    store = place.open()
    await store.memories.remember("acme", memory(1, key="vaultkey", tags=("secrettag",)))
    assert await found(store, "zanzibar") == ["1"]
    await store.close()
    written = bytes_of(place).lower()
    assert b"0/remember#0" in written
    for word in (b"zanzibar", b"combin", b"vaultkey", b"secrettag"):
        assert word not in written


@pytest.mark.promise("G2")
@pytest.mark.rule("R6")
async def test_a_lost_key_erases_what_was_remembered(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path)
    store = place.open()
    await store.memories.remember("acme", memory(1))
    await store.memories.remember("other", memory(2))
    await store.close()
    [key] = [path for path in (tmp_path / "data" / "keys").iterdir() if "acme" in path.name]
    key.unlink()
    store = place.open()
    wanted = Recall(spaces=(AGENT,), at=START + 10**9)
    assert await found(store, "zanzibar") == [] and await store.memories.recall("acme", wanted) == []
    assert await found(store, "zanzibar", "other") == ["2"]
    [left] = await store.memories.listed(Listing(tenant_id="acme"))
    assert left.memory.content is None and left.memory.agent == "clerk"
    await store.memories.remember("acme", memory(3))
    assert await found(store, "zanzibar") == ["3"] and len(await store.memories.recall("acme", wanted)) == 1
    await store.close()


@pytest.mark.promise("G2")
@pytest.mark.parametrize("kind", REAL)
async def test_what_ends_has_no_content_and_keeps_its_provenance(kind: str, places: Places) -> None:
    with places.new(kind) as place:
        store = place.open()
        await store.memories.remember("acme", memory(1, key="k"))
        await store.memories.remember("acme", memory(2, "newer", key="k"))
        await store.memories.remember("acme", memory(3, "short-lived", expires_at=START + 4))
        await store.memories.remember("acme", memory(5, "last"))
        assert await store.memories.forget("acme", AGENT, f"{5:032x}", "person:ana", START + 6) == 1
        assert await store.memories.forget("other", AGENT, "k", "person:eve", START + 6) == 0
        rows = await store.memories.listed(Listing(scope="agent", owner="clerk", run_id="r", everything=True))
        states = [(int(one.memory.memory_id, 16), one.state, one.memory.content) for one in rows]
        assert states == [(5, "forgotten", None), (3, "expired", None), (2, "kept", "newer"), (1, "replaced", None)]
        assert [int(one.memory.memory_id, 16) for one in await store.memories.listed(Listing(limit=1))] == [2]
        assert {one.memory.run_id for one in rows} == {"r"}
        assert await found(store, "zanzibar newer last") == ["2"]
        await store.close()


@pytest.mark.promise("G2", "C1")
@pytest.mark.rule("R9")
@pytest.mark.parametrize("kind", REAL)
async def test_an_owner_that_was_taken_for_dead_writes_no_memory(kind: str, places: Places) -> None:
    with places.new(kind) as place:
        store = place.open()
        await store.register(host())
        await store.submit([new_run("r")])
        owner = await own(store, "r")
        await store.memories.remember("acme", memory(1), owner.leased.epoch)
        await store.retire("h1")
        await store.register(host("h2"))
        await own(store, "r", host("h2"))
        with pytest.raises(Fenced, match="writes no memory"):
            await store.memories.remember("acme", memory(2), owner.leased.epoch)
        assert await found(store, "zanzibar") == ["1"]
        await store.close()


@pytest.mark.promise("G2")
async def test_an_owner_has_a_bounded_number_of_memories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "MOST_KEPT", 2)
    store = Place("sqlite", tmp_path).open()
    for number in (1, 2):
        await store.memories.remember("acme", memory(number))
    with pytest.raises(PermanentError, match="agent clerk has 2 memories already"):
        await store.memories.remember("acme", memory(3))
    await store.memories.remember("other", memory(4))
    await store.close()


def test_rare_words_count_more_and_long_texts_less() -> None:
    postings = [("rare", 1, 1, 10), ("usual", 1, 1, 10), ("usual", 2, 1, 10), ("usual", 3, 1, 100)]
    scores = rank(postings, 50)
    assert sorted(scores, key=lambda num: -scores[num]) == [1, 2, 3]
    assert rank([], 50) == {}
