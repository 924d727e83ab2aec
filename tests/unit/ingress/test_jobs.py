"""When a batch may begin, go on, begin anew, or must not: nothing that exists is touched unless asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from retinue.ingress.jobs import JobNote, keep, note_for, settle
from retinue.runs.errors import InvalidInput
from retinue.runs.sources import Source

NONE: dict[str, str | None] = {"max_cost": None, "model": None, "tenant": None}


@pytest.fixture
def wanted(folder: Path) -> JobNote:
    """A batch that is asked for."""
    source = Source(path=str(folder / "in.jsonl"), format="jsonl", fingerprint="f1")
    return note_for("agent", source, folder / "out.jsonl", NONE)


def begin(note: JobNote, folder: Path, ended: bool) -> None:
    """Leave what a batch leaves behind."""
    keep(replace(note, job_id="job", ended=ended), folder / "data")
    Path(note.output).write_text("{}\n")


def test_the_first_time_begins(wanted: JobNote, folder: Path) -> None:
    for resume, force in ((False, False), (True, False), (False, True)):
        assert settle(wanted, folder / "data", resume=resume, force=force) == wanted
    assert not (folder / "data").exists()


def test_an_output_of_somebody_else_is_left_alone(wanted: JobNote, folder: Path) -> None:
    Path(wanted.output).write_text("mine\n")
    with pytest.raises(InvalidInput, match=r"out.jsonl exists: name another file, or --force replaces it$"):
        settle(wanted, folder / "data", resume=False, force=False)


def test_an_unfinished_job_is_resumed_or_begun_anew_on_request_only(wanted: JobNote, folder: Path) -> None:
    begin(wanted, folder, ended=False)
    Path(wanted.output).unlink()
    with pytest.raises(InvalidInput, match=r"unfinished job .*--resume goes on with it, --force begins anew"):
        settle(wanted, folder / "data", resume=False, force=False)
    resumed = settle(wanted, folder / "data", resume=True, force=False)
    assert (resumed.key, resumed.job_id) == (wanted.key, "job")
    anew = settle(wanted, folder / "data", resume=False, force=True)
    assert (anew.generation, anew.job_id) == (2, None)
    assert anew.key != wanted.key


def test_an_ended_job_is_not_repeated_while_its_output_is_there(wanted: JobNote, folder: Path) -> None:
    begin(wanted, folder, ended=True)
    with pytest.raises(InvalidInput, match="or --resume writes it again from the finished job"):
        settle(wanted, folder / "data", resume=False, force=False)
    assert settle(wanted, folder / "data", resume=True, force=False).ended
    Path(wanted.output).unlink()
    assert settle(wanted, folder / "data", resume=False, force=False).generation == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": 5}, "--limit was None, and is 5 now"),
        ({"max_cost": "1"}, "--max-cost was None, and is 1 now"),
        ({"model": "m"}, "--model was None, and is m now"),
        ({"tenant": "t"}, "--tenant was None, and is t now"),
        ({"id_field": "key"}, "--id was id, and is key now"),
        ({"fingerprint": "f2"}, "the input file has changed"),
    ],
)
def test_a_resumed_job_cannot_become_another(
    wanted: JobNote, folder: Path, change: dict[str, str | int], words: str
) -> None:
    begin(wanted, folder, ended=False)
    with pytest.raises(InvalidInput, match=words):
        settle(replace(wanted, **change), folder / "data", resume=True, force=False)  # type: ignore[arg-type]


def test_jobs_differ_by_agent_input_and_output(wanted: JobNote) -> None:
    others = [replace(wanted, **{name: "other"}) for name in ("agent", "input", "output")]  # type: ignore[arg-type]
    assert len({note.key for note in [wanted, *others]}) == 4


def test_a_note_that_cannot_be_read_is_told(wanted: JobNote, folder: Path) -> None:
    begin(wanted, folder, ended=False)
    [note] = (folder / "data" / "jobs").iterdir()
    note.write_text("{half")
    with pytest.raises(InvalidInput, match=r"cannot be read .*: remove it, then --force"):
        settle(wanted, folder / "data", resume=True, force=False)
