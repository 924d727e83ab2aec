"""A run of more turns than any context holds: bounded in every turn, nothing owed forgotten, the same after crashes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.crash.long_agent import LIMIT, LOG, REFUSED, RESETS, RETRIED, TURNS, archivist, decisions
from tests.doubles.shapes import START
from tests.doubles.worlds import World
from tests.unit.runs.conftest import Make

from retinue.runs.agent_state import AgentState
from retinue.runs.artifacts import Artifact
from retinue.runs.contracts import Branch
from retinue.runs.journal import AnyEntry, Checkpoint, Intent, Record
from retinue.store.blobs import FolderBlobs
from retinue.store.frames import FrameCodec
from retinue.store.sealing import KeyFolder, Vault

pytestmark = [pytest.mark.promise("A10", "A6"), pytest.mark.rule("R2")]

POLICY = """
@id("all") permit (principal, action, resource);
@id("ask") @outcome("approval") @reason("mails need a yes") forbid (principal, action, resource == Capability::"mail");
"""


@pytest.fixture
def mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONG_LOG", str(tmp_path / LOG))
    return tmp_path / LOG


async def prepared(make: Make) -> World:
    world = await make(archivist, policy=POLICY)
    world.use(context_tokens=LIMIT)
    world.decide(*decisions())
    return world


async def carried(world: World, run_id: str) -> Branch:
    """Drive to the end; the first request for the mail is denied, the second one approved, both over a crash."""
    for verdict in ("denied", "approved"):
        await world.settle()
        await world.crash()
        [request] = await world.store.requests()
        await world.store.resolve(request.request_id, verdict, "bob", START)
    return await world.finish(run_id)


def sent(mails: Path, clear: bool = False) -> int:
    """How many mails the log holds."""
    count = len(mails.read_text().splitlines())
    if clear:
        mails.unlink()
    return count


def records(entries: list[AnyEntry], topic: str) -> list[Record]:
    return [entry for entry in entries if isinstance(entry, Record) and entry.topic == topic]


def marks(entries: list[AnyEntry]) -> list[Checkpoint]:
    return [entry for entry in entries if isinstance(entry, Checkpoint)]


async def test_a_long_run_ends_with_all_it_owed_settled_and_its_quotes_found(make_on_each: Make, mails: Path) -> None:
    world = await prepared(make_on_each)
    run_id = await world.submit(archivist, "What do the documents say?")
    result = await carried(world, run_id)
    assert result.ok and result.value["last"]["document"] == "doc-122"
    assert result.facts == {"confidence": 1.0, "turns": TURNS + 1, "open_obligations": []}, (
        "nothing is left open, and no quote was lost"
    )
    assert sent(mails) == 1

    entries = await world.entries(run_id)
    assert [mark.facts["turn"] for mark in records(entries, "reset")] == [RESETS, 2 * RESETS]
    assert len(records(entries, "compaction")) >= 6
    told = [(note.facts["id"], note.facts["event"], note.facts["turn"]) for note in records(entries, "obligation")]
    assert told == [
        ("b1", "added", 2),
        ("b2", "added", 2),
        ("b1", "settled", 40),
        ("b3", "added", REFUSED),
        ("b3", "settled", RETRIED),
        ("b2", "settled", TURNS),
    ]


async def test_what_was_refused_is_owed_across_a_reset_and_shown_in_every_turn(make: Make, mails: Path) -> None:
    world = await prepared(make)
    run_id = await world.submit(archivist, "What do the documents say?")
    await carried(world, run_id)
    entries = await world.entries(run_id)
    written = Artifact.model_validate(records(entries, "reset")[0].content)
    assert [(item.id, item.by, item.since) for item in written.obligations] == [
        ("b2", "model", 2),
        ("b3", "runtime", REFUSED),
    ]
    assert written.next_steps == ("read on to 122",) and written.origin.turn == RESETS
    assert written.recap is not None and written.recap.evidence and written.recap.first == 0
    asked = {entry.facts["turn"]: entry for entry in entries if isinstance(entry, Intent) and entry.effect == "model"}
    for turn in range(3, TURNS + 1):
        shown = "\n".join(message["content"] for message in asked[turn].content["messages"][:3] if "content" in message)
        assert "b2 (since turn 2): file the report" in shown
        assert ("mail was not approved" in shown) == (REFUSED < turn <= RETRIED)
    fresh = asked[RESETS].content["messages"]
    assert [message["role"] for message in fresh] == ["system", "user", "user"]
    assert fresh[2]["content"].startswith("You continue your own work after turn 50")


async def test_no_turn_is_larger_than_the_limit_and_no_checkpoint_grows(
    make: Make, mails: Path, tmp_path: Path
) -> None:
    world = await prepared(make)
    run_id = await world.submit(archivist, "What do the documents say?")
    await carried(world, run_id)
    entries = await world.entries(run_id)
    packets = records(entries, "context")
    assert len(packets) == TURNS + 1
    assert max(packet.facts["tokens"] for packet in packets) <= LIMIT
    for note in records(entries, "compaction"):
        assert note.facts["tokens_after"] < note.facts["tokens_before"]
        assert len(note.content["dropped"]) == note.facts["count"]

    vault = Vault(KeyFolder(tmp_path / "keys"))
    codec = FrameCodec(vault, FolderBlobs(tmp_path / "blobs", vault))
    sizes, stored = [], []
    for mark in marks(entries):
        frame = codec.encode("acme", "here", [mark])
        sizes.append(len(frame.sealed or b"") + len(frame.facts))
        stored.append({address for address, _ in frame.shared})
    early, late = max(sizes[20:60]), max(sizes[-60:])
    assert late <= early * 1.25, f"checkpoints grew from {early} to {late} bytes"
    assert max(map(len, stored)) < 40
    fresh = [len(after - before) for before, after in pairwise(stored)]
    assert max(fresh) <= 4, "a turn stores its own two messages anew, a compaction recap and page besides"
    asked = [entry for entry in entries if isinstance(entry, Intent) and entry.effect == "model"]
    newest = AgentState.model_validate(marks(entries)[5].content).model_dump(mode="json")["messages"][-1]
    assert newest in asked[6].content["messages"], "request and checkpoint store one message once"


async def test_a_crash_anywhere_gives_the_same_run(make: Make, mails: Path) -> None:
    world = await prepared(make)
    calm = await world.submit(archivist, "What do the documents say?")
    undisturbed = await carried(world, calm)
    assert sent(mails, clear=True) == 1
    rough = await world.submit(archivist, "What do the documents say?")
    for turn in (7, 20, 33, 46):
        await world.until_journaled(rough, lambda entries, turn=turn: turn_of(entries) >= turn)
        await world.crash()
    await world.settle()
    [first] = await world.store.requests()
    await world.store.resolve(first.request_id, "denied", "bob", START)
    await world.until_journaled(rough, lambda entries: bool(records(entries, "reset")))
    await world.crash()
    await world.settle()
    [second] = await world.store.requests()
    await world.store.resolve(second.request_id, "approved", "bob", START)
    for turn in (70, 99, 100, 110):
        await world.until_journaled(rough, lambda entries, turn=turn: turn_of(entries) >= turn)
        await world.crash()
    result = await world.finish(rough)
    assert (result.value, result.facts) == (undisturbed.value, undisturbed.facts)
    same, other = await world.entries(calm), await world.entries(rough)
    assert sum(entry.kind == "leased" for entry in other) >= 10, "the crashes fell between its turns"
    assert told(other, rough) == told(same, calm)
    assert sent(mails) == 1


def turn_of(entries: list[AnyEntry]) -> int:
    """The turn that the newest checkpoint leads to."""
    newest = marks(entries)
    return AgentState.model_validate(newest[-1].content).turn if newest else 0


def told(entries: list[AnyEntry], run_id: str) -> list[Any]:
    """States, decisions, compactions, resets and obligations of a run, without its own id."""
    kept = ("decision", "compaction", "reset", "obligation", "observation", "validation")
    found = [
        (entry.name, entry.content) if isinstance(entry, Checkpoint) else (entry.topic, entry.facts, entry.content)
        for entry in entries
        if isinstance(entry, Checkpoint) or (isinstance(entry, Record) and entry.topic in kept)
    ]
    return [repr(item).replace(run_id, "RUN") for item in found]
