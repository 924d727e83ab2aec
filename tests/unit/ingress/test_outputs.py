"""The files of a batch: told early when they cannot be written, never half replaced."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retinue.ingress.outputs import PartialRows, check_output, dead_letters_of, replace_with, write_whole
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput, StoreFull


async def rows(*values: int) -> AsyncIterator[dict[str, Json]]:
    """Some rows; a negative number breaks off."""
    for value in values:
        if value < 0:
            raise LookupError("gone")
        yield {"id": value}


def test_an_output_is_made_absolute_and_not_made(folder: Path) -> None:
    source = folder / "in.jsonl"
    source.write_text("{}\n")
    assert check_output(Path("out.jsonl"), source) == folder / "out.jsonl"
    assert [path.name for path in folder.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("sub", "is a folder: name a file in it"),
        ("in.jsonl", "is the input: name another file"),
        ("link.jsonl", "is the input: name another file"),
        ("none/out.jsonl", "there is no folder"),
        ("in.jsonl/out.jsonl", "there is no folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused_with_a_remedy(folder: Path, output: str, words: str) -> None:
    source = folder / "in.jsonl"
    source.write_text("{}\n")
    (folder / "sub").mkdir()
    (folder / "link.jsonl").symlink_to(source)
    with pytest.raises(InvalidInput, match=words):
        check_output(Path(output), source)


def test_a_folder_that_takes_no_file_is_told() -> None:
    # /proc takes no new file from anyone, root included.
    with pytest.raises(InvalidInput, match=r"cannot be written: .*; name another file"):
        check_output(Path("/proc/out.jsonl"), Path(__file__))


def test_partial_rows_are_on_disk_as_soon_as_they_are_added(folder: Path) -> None:
    path = folder / "out.jsonl"
    partial = PartialRows(path)
    partial.add([{"id": 1, "answer": "é"}])
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [{"id": 1, "answer": "é"}]
    partial.close()


async def test_the_file_is_replaced_at_once(folder: Path) -> None:
    path = folder / "out.jsonl"
    path.write_text("old\n")
    assert await replace_with(path, rows(1, 2)) == 2
    assert path.read_text() == '{"id": 1}\n{"id": 2}\n'
    assert os.listdir(folder) == ["out.jsonl"]


async def test_a_replacement_that_breaks_off_leaves_the_old_file(folder: Path) -> None:
    path = folder / "out.jsonl"
    path.write_text("old\n")
    with pytest.raises(LookupError):
        await replace_with(path, rows(1, -1))
    assert path.read_text() == "old\n"
    assert os.listdir(folder) == ["out.jsonl"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_nothing_is_lost() -> None:
    partial = PartialRows(Path("/dev/full"))
    with pytest.raises(StoreFull, match="the disk is full; no finished row is lost: free space, then --resume"):
        partial.add([{"id": 1}])
    with pytest.raises(StoreFull):
        partial.close()


def test_a_small_file_is_written_whole(folder: Path) -> None:
    write_whole(folder / "note", ["a\n", "b\n"])
    assert (folder / "note").read_text() == "a\nb\n"
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_whole(folder / "none" / "note", ["a\n"])


def test_dead_letters_stand_beside_the_output() -> None:
    assert dead_letters_of(Path("a/out.jsonl")) == Path("a/out.jsonl.dead.jsonl")
