"""Whole results: kept once, sealed, apart from what replay reads, and opened when somebody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinue.runs.capabilities import FULL_OUTPUT
from retinue.runs.journal import AnyEntry, Record
from retinue.store.blobs import FolderBlobs
from retinue.store.frames import Encoded, FrameCodec
from retinue.store.sealing import KeyFolder, Vault

pytestmark = [pytest.mark.promise("D5"), pytest.mark.rule("R6")]

FACTS = {"key": "k#0", "name": "t", "size": 1, "sha256": "0"}
LARGE = "x" * 200_000


class Kept:
    """A codec with the blobs of a folder, and how often one was read."""

    def __init__(self, folder: Path) -> None:
        vault = Vault(KeyFolder(folder / "keys"))
        self.blobs = FolderBlobs(folder / "blobs", vault)
        self.codec = FrameCodec(vault, self)
        self.reads = 0

    def put(self, tenant_id: str, address: str, plain: bytes) -> None:
        self.blobs.put(tenant_id, address, plain)

    def get(self, tenant_id: str, address: str) -> bytes | None:
        self.reads += 1
        return self.blobs.get(tenant_id, address)

    def write(self, *entries: AnyEntry) -> Encoded:
        encoded = self.codec.encode("acme", "r:1", entries)
        self.codec.keep("acme", encoded.blobs)
        return encoded

    def read(self, encoded: Encoded) -> tuple[AnyEntry, ...]:
        return self.codec.decode("acme", "r:1", (1, encoded.facts, encoded.sealed), lambda _: None)


def whole(value: Any) -> Record:
    return Record(at=1, topic=FULL_OUTPUT, by="runtime", facts=FACTS, content={"value": value})


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_large_one_is_read_when_it_is_asked_for_and_not_before(kept: Kept) -> None:
    [found] = kept.read(kept.write(whole(LARGE)))
    assert kept.reads == 0
    assert found.content["size"] > 200_000 and "value" not in found.content
    assert kept.codec.fetched("acme", found.content) == {"value": LARGE}
    assert kept.reads == 1


def test_a_small_one_is_there_at_once(kept: Kept) -> None:
    [found] = kept.read(kept.write(whole([1, 2])))
    assert found.content == kept.codec.fetched("acme", found.content) == {"value": [1, 2]}


def test_what_a_fork_takes_over_leads_to_the_same_blob(kept: Kept) -> None:
    [found] = kept.read(kept.write(whole(LARGE)))
    again = kept.write(found)
    assert again.blobs == []
    [taken] = kept.read(again)
    assert taken == found
    assert kept.codec.fetched("acme", taken.content) == {"value": LARGE}


@pytest.mark.parametrize("value", [{"$blob": "abc"}, {"$plain": 1}, {"messages": [1]}, None, LARGE])
def test_no_value_is_taken_for_a_reference(kept: Kept, value: Any) -> None:
    [found] = kept.read(kept.write(whole(value)))
    assert kept.codec.fetched("acme", found.content) == {"value": value}


def test_content_of_any_other_record_is_opened_as_ever(kept: Kept) -> None:
    for content in (LARGE, {"$blob": "abc"}, {"value": LARGE}):
        record = Record(at=1, topic="note", content=content)
        assert kept.read(kept.write(record)) == (record,)
