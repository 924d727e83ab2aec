"""Sandboxes and snapshots by the command line alone: work in them, look at them, keep, compare and remove them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ingress.conftest import Command

from retinue.host.clock import now_ns

pytestmark = pytest.mark.promise("E2")

MANIFEST = "description: To work on\nprofile: unconfined\nfiles: {notes.txt: do it}\n"
RULES = '@id("all") permit (principal, action, resource);'


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the manifest `coder`, whose programs are not confined: that works on any machine."""
    folder = tmp_path_factory.mktemp("work")
    folder.chmod(0o755)
    (folder / "sandbox").mkdir()
    (folder / "policy").mkdir()
    (folder / "retinue.yaml").write_text("principal: bob\ntelemetry: {emit_structured_events: false}\n")
    (folder / "sandbox" / "coder.yaml").write_text(MANIFEST)
    (folder / "policy" / "rules.cedar").write_text(RULES)
    return folder


@pytest.fixture
def project(ready: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(ready)
    yield ready


def shell(retinue: Command, source: str, command: str, *options: str) -> Any:
    """What a command line in a new sandbox came to."""
    said = retinue("sandbox", "exec", source, "--local", "--json", *options, "--", "sh", "-c", command)
    assert said.code == 0, said.out + said.err
    return said.json


def age(project: Path) -> None:
    """Let all snapshots have been taken an hour ago."""
    for path in (project / ".retinue" / "sandboxes" / "snapshots").rglob("*"):
        if path.is_file():
            os.utime(path, (now_ns() / 1e9 - 3_600,) * 2)


def test_a_program_runs_in_a_new_sandbox_and_is_on_record(project: Path, retinue: Command) -> None:
    said = retinue("sandbox", "exec", "coder", "--local", "--", "sh", "-c", "cat notes.txt; echo odd >&2; exit 3")
    assert (said.code, said.out) == (1, "do it") and "odd" in said.err and "ended with code 3" in said.err
    done = shell(retinue, "coder", "echo more > more.txt", "--keep", "--env", "A=b")
    assert done["result"]["exit_code"] == 0 and done["snapshot"].startswith("s1-")
    assert retinue("sandbox", "list").out == "no sandboxes\n", "both are closed"
    newest, oldest = retinue("sandbox", "list", "--all", "--json", "--run", done["run_id"]).json * 2
    assert newest == oldest and newest["state"]["head_snapshot_id"] == done["snapshot"]
    listed = retinue("sandbox", "list", "--all", "--manifest", "coder").out.splitlines()
    assert len(listed) == 3 and "can_resume can_snapshot" in listed[1] and "the run ended" in listed[1]
    shown = retinue("sandbox", "show", done["sandbox"][-8:])
    assert f"head       {done['snapshot']}, generation 1" in shown.out.splitlines()
    moves = ["opened", "snapshot", "snapshot", "closed"]  # after what is not to be run again, and when asked for
    assert [line.split()[2] for line in shown.out.splitlines()[-4:]] == moves
    facts = retinue("sandbox", "show", done["sandbox"], "--json").json
    assert facts["kept"] and facts["lost_execs"] == [] and facts["record"]["run_status"] == "completed"
    assert [move["event"] for move in facts["moves"]] == moves


def test_snapshots_are_gone_on_with_compared_and_written_out(project: Path, retinue: Command, tmp_path: Path) -> None:
    base = retinue("sandbox", "snapshot", "coder", "--local", "--pin", "base", "--json").json
    assert base["entries"] == 1 and base["run_id"]
    again = retinue("sandbox", "snapshot", base["snapshot"], "--local", "--json").json
    assert (again["snapshot"], again["run_id"]) == (base["snapshot"], None), "nothing had to be run"
    done = shell(retinue, "base", "echo new > new.txt; echo done > notes.txt", "--keep")
    text = retinue("sandbox", "diff", "base", done["sandbox"]).out
    assert text.splitlines() == ["+ new.txt", "~ notes.txt"]
    assert retinue("sandbox", "diff", "base", "base").out == "no difference\n"
    said = retinue("sandbox", "restore", done["snapshot"], tmp_path / "out", "--local")
    assert said.code == 0 and (tmp_path / "out" / "notes.txt").read_text() == "done\n"
    assert retinue("sandbox", "restore", "base", tmp_path / "out", "--local").code == 2, "it is there already"


def test_forks_work_at_once_and_each_is_kept(project: Path, retinue: Command) -> None:
    command = ("sh", "-c", "echo $RETINUE_FORK > n; test $RETINUE_FORK != 1")
    said = retinue("sandbox", "fork", "coder", "2", "--local", "--json", "--", *command)
    assert said.code == 1, "one of them failed"
    forks = said.json["forks"]
    assert [fork["result"]["exit_code"] for fork in forks] == [0, 1]
    assert len({fork["snapshot"] for fork in forks}) == 2
    text = retinue("sandbox", "diff", *(fork["snapshot"] for fork in forks)).out
    assert text == "~ n\n"
    assert retinue("sandbox", "fork", "coder", "1", "--local").code == 0, "nothing has to be run"


def test_a_snapshot_is_carried_to_another_tenant(project: Path, retinue: Command, tmp_path: Path) -> None:
    kept = shell(retinue, "coder", "echo far > far", "--keep")["snapshot"]
    file = tmp_path / "far.tar.zst"
    assert retinue("sandbox", "export", kept, file, "--json").json["snapshot"] == kept
    assert retinue("sandbox", "export", kept, file).code == 2, "it is there already"
    assert retinue("sandbox", "exec", kept, "--tenant", "zeta", "--local", "true").code == 2, "not its own"
    assert retinue("sandbox", "import", file, "--tenant", "zeta", "--pin", "far").code == 2, "and under which manifest?"
    said = retinue("sandbox", "import", file, "--tenant", "zeta", "--pin", "far", "--manifest", "coder", "--json")
    assert said.json["snapshot"] == kept
    done = shell(retinue, "far", "cat far", "--tenant", "zeta")
    assert done["result"]["stdout"] == "far\n"
    file.write_bytes(file.read_bytes()[:-9])
    assert "no archive" in retinue("sandbox", "import", file).err


def test_what_nobody_needs_goes_and_what_is_pinned_stays(project: Path, retinue: Command) -> None:
    done = shell(retinue, "coder", "echo $$ > unique", "--keep")
    retinue("sandbox", "snapshot", done["snapshot"], "--local", "--pin", "mine")
    gone = shell(retinue, "coder", "echo $$ gone > unique", "--keep")["snapshot"]
    age(project)
    assert gone not in retinue("sandbox", "gc", "--json").json["tenants"]["default"]["snapshots"], "time of grace"
    would = retinue("sandbox", "gc", "--keep", "0.01", "--dry-run", "--json").json["tenants"]["default"]
    assert gone in would["snapshots"] and done["snapshot"] not in would["snapshots"] and would["bytes"] > 0
    assert retinue("sandbox", "gc", "--keep", "0.01", "--json").json["tenants"]["default"] == would
    assert "not in the store" in retinue("sandbox", "show", gone_of(retinue, gone)).out
    assert "not in the store" in retinue("sandbox", "diff", gone, done["snapshot"]).err
    assert "mine" in [pin["name"] for pin in retinue("sandbox", "list", "--pins", "--json").json]
    left = retinue("sandbox", "gc", "--keep", "0.01", "--unpin", "mine", "--json").json["tenants"]["default"]
    assert done["snapshot"] in left["snapshots"]
    assert retinue("sandbox", "gc", "--unpin", "mine").code == 2, "there is no such pin any more"


def gone_of(retinue: Command, snapshot: str) -> str:
    """The sandbox that took a snapshot."""
    found = retinue("sandbox", "list", "--all", "--json").json
    return str(next(one["state"]["sandbox_id"] for one in found if one["state"]["head_snapshot_id"] == snapshot))


def test_the_rules_decide_what_a_person_may_do_there(
    project: Path, retinue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "policy" / "rules.cedar").write_text(
        RULES + '@id("no") @reason("not this one") forbid (principal, action == Action::"sandbox", resource);'
    )
    try:
        said = retinue("sandbox", "exec", "coder", "--local", "--", "touch", "here")
        assert said.code == 1 and "not this one" in said.err
    finally:
        (project / "policy" / "rules.cedar").write_text(RULES)


def test_what_is_not_there_is_told(project: Path, retinue: Command) -> None:
    nothing = "s1-" + "0" * 64
    for arguments, words in (
        (("show", "nope"), "there is no sandbox 'nope'"),
        (("exec", "nope", "--local", "true"), "nor is it a manifest"),
        (("diff", "coder", nothing), "is a manifest"),
        (("export", nothing, "x.tar.zst"), "not in the store"),
        (("exec", nothing, "--local", "true"), "--manifest"),
        (("exec", "coder", "--local", "--env", "A", "true"), "NAME=VALUE"),
        (("import", "nothing.tar.zst"), "cannot be read"),
        (("snapshot", nothing, "--pin", "coder", "--manifest", "coder"), "no manifest's"),
        (("restore", "coder", ".", "--local"), "there already"),
    ):
        said = retinue("sandbox", *arguments)
        assert said.code in (1, 2) and words in said.err, (arguments, said)


def test_another_tenants_sandbox_is_not_worked_with_unnamed(project: Path, retinue: Command) -> None:
    done = shell(retinue, "coder", "echo far > far", "--keep", "--tenant", "yota")
    for verb in (("exec", "--local"), ("snapshot",), ("export",)):
        rest = ("x.tar.zst",) if verb == ("export",) else ("true",) if "exec" in verb else ()
        said = retinue("sandbox", verb[0], *verb[1:], done["sandbox"], *rest)
        assert said.code == 2 and "is of tenant 'yota' and not of 'default': say --tenant yota" in said.err
    assert shell(retinue, done["sandbox"], "cat far", "--tenant", "yota")["result"]["stdout"] == "far\n"


def test_what_is_said_wrong_is_told_before_anything_runs(project: Path, retinue: Command, tmp_path: Path) -> None:
    kept = shell(retinue, "coder", "echo one > one", "--keep")["snapshot"]
    other = shell(retinue, "coder", "echo two > one", "--keep")["snapshot"]
    runs = len(retinue("ps", "--json").json)
    for arguments, words in (
        (("exec", kept, "--manifest", "nope", "--local", "true"), "there is no such manifest; there are: coder"),
        (("snapshot", kept, "--manifest", "nope", "--pin", "p"), "there is no such manifest"),
        (("import", "x.tar.zst", "--pin", "Bad", "--manifest", "coder"), "a pin's name is"),
        (("restore", kept, str(tmp_path / "none" / "out"), "--local"), "make that folder"),
        (("export", kept, str(tmp_path / "none" / "x.tar.zst")), "make that folder"),
        (("gc", "--unpin", "nope", "--dry-run"), "takes out no pin"),
        (("list", "--pins", "--status", "open"), "neither --run nor --status"),
    ):
        said = retinue("sandbox", *arguments)
        assert said.code == 2 and words in said.err, (arguments, said)
    assert len(retinue("ps", "--json").json) == runs
    retinue("sandbox", "snapshot", kept, "--pin", "best")
    assert f"best was {kept}, pinned by bob" in retinue("sandbox", "snapshot", other, "--pin", "best").err
    assert other in retinue("sandbox", "list", "--pins", "--manifest", "coder").out, "the whole id, to be copied"
    assert "best" not in retinue("sandbox", "list", "--pins", "--manifest", "nope").out


def test_output_and_how_it_ended_stand_on_lines_of_their_own(project: Path, retinue: Command) -> None:
    said = retinue("sandbox", "exec", "coder", "--local", "--", "sh", "-c", "printf oops >&2; exit 3")
    assert "oops\nended with code 3" in said.err
    forked = retinue("sandbox", "fork", "coder", "2", "--local", "--", "sh", "-c", "echo no $RETINUE_FORK >&2; exit 1")
    assert "0: no 0\n1: no 1" in forked.err
