"""`retinue sandbox check` and `pin`, as somebody uses them who reviews a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command
from tests.unit.sandbox.manifests.projects import Project, tar_of

from retinue.host.settings import load_settings
from retinue.ingress.manifest_checks import check_manifests

pytestmark = pytest.mark.promise("E1")

MANIFEST = """
description: Something to work on
revision: 2
files: {notes/todo.md: do it, run.sh: {from: run.sh}}
directories: {src: {from: src, exclude: ["*.pyc"]}, out: }
archives: {vendor: vendor.tgz}
environment: {MODE: fast, API_KEY: "${DESK_KEY}"}
limits: {memory: 64MiB}
exclude: ["*.log"]
"""


@pytest.fixture
def place(folder: Path) -> Project:
    """A project with a manifest `coder`, in the current folder."""
    project = Project(folder / "project")
    project.put("retinue.yaml", "principal: bob\n")
    project.put("run.sh", "#!/bin/sh\n", 0o755)
    project.put("src/a.py", "x" * 2_000)
    project.put("src/a.pyc", "x")
    project.put("vendor.tgz", tar_of(("v/a", b"1"), compression="gz"))
    project.manifest(MANIFEST)
    return project


def test_a_manifest_is_explained(place: Project, retinue: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_KEY", "hunter2-hunter2")
    said = retinue("sandbox", "check", "coder", "--project", place.folder)
    assert said.code in (0, 1), said.err
    lines = said.out.splitlines()
    assert lines[0] == "coder       Something to work on"
    assert "review      nobody has: `retinue sandbox pin coder`" in lines
    assert "secrets     DESK_KEY (set)" in lines and "hunter2" not in said.out + said.err
    assert any("memory 64 MiB" in line for line in lines) and any("no network" in line for line in lines)
    assert "workspace   9 names, 2 KiB" in lines
    assert [line.split()[:2] for line in lines[lines.index("workspace   9 names, 2 KiB") + 2 :]] == [
        ["archives.vendor", "3"],
        ["directories.src", "2"],
        ["directories.out", "1"],
        ["files.notes/todo.md", "2"],
        ["files.run.sh", "1"],
    ]
    facts = retinue("sandbox", "check", "coder", "--json", "--project", place.folder).json
    assert (facts["revision"], facts["secrets"], facts["unset"]) == (2, ["DESK_KEY"], [])
    # What this machine can enforce depends on it: either a backend holds the profile, or all that lacks is named.
    assert bool(facts["backend"]) != bool(facts["refusal"]) and facts["usable"] == bool(facts["backend"])
    assert facts["enforced"].get("files") == "enforced" or "remedy" in facts["refusal"]


def test_a_secret_that_is_not_set_is_named(place: Project, retinue: Command) -> None:
    said = retinue("sandbox", "check", "coder", "--quick", "--project", place.folder)
    assert said.code == 1 and "secrets     DESK_KEY (not set)" in said.out and "workspace" not in said.out


def test_a_file_elsewhere_is_explained_too(place: Project, retinue: Command, tmp_path: Path) -> None:
    (tmp_path / "draft.yaml").write_text("files: {a: x}\n")
    said = retinue("sandbox", "check", tmp_path / "draft.yaml", "--quick", "--json", "--project", place.folder)
    assert (said.code, said.json["name"], said.json["parts"]) == (0, "draft", None)
    assert retinue("sandbox", "check", "./none.yaml", "--project", place.folder).code == 2
    assert "did you mean coder?" in retinue("sandbox", "check", "codr", "--project", place.folder).err


def test_what_is_pinned_is_reviewed_until_it_changes(
    place: Project, retinue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_KEY", "x")
    here = ("--project", place.folder)
    assert "say --yes" in retinue("sandbox", "pin", "coder", *here).err
    assert not (place.folder / "sandbox.lock").exists()
    said = retinue("sandbox", "pin", "coder", "--by", "ana", "--yes", *here)
    assert said.code == 0 and "by ana" in said.out and "files.notes/todo.md.text: do it" in said.err
    assert retinue("sandbox", "check", "coder", "--quick", "--json", *here).json["reviewed_by"] == "ana"
    assert retinue("sandbox", "pin", "coder", "--json", *here).json["written"] is False

    place.manifest(MANIFEST.replace("do it", "do more"))
    said = retinue("sandbox", "check", "coder", "--quick", *here)
    assert said.code == 1 and "~ files.notes/todo.md.text: do it -> do more" in said.out
    assert json.loads((place.folder / "sandbox.lock").read_text())["manifests"]["coder"]["by"] == "ana"
    said = retinue("sandbox", "pin", "coder", "--yes", *here)
    assert said.code == 0 and "1 change since ana pinned it" in said.err and "by bob" in said.out

    (place.folder / "sandbox/coder.yaml").unlink()
    assert "its pin is gone" in retinue("sandbox", "pin", "coder", "--yes", *here).out
    assert retinue("sandbox", "pin", "coder", "--yes", *here).code == 2


def test_what_would_harm_is_told_before_it_is_used(place: Project, retinue: Command) -> None:
    place.put("vendor.tgz", tar_of(("../x", b"1"), compression="gz"))
    said = retinue("sandbox", "check", "coder", "--project", place.folder)
    assert said.code == 2 and "archive 'vendor.tgz' is refused: '../x' leads out of it" in said.err


def test_doctor_has_a_row_for_each_manifest(place: Project, monkeypatch: pytest.MonkeyPatch, retinue: Command) -> None:
    place.manifest("profile: unconfined\n", "free")
    place.manifest("profle: strict\n", "wrong")
    retinue("sandbox", "pin", "free", "--by", "ana", "--yes", "--project", place.folder)
    place.manifest("", "gone")
    retinue("sandbox", "pin", "gone", "--yes", "--project", place.folder)
    (place.folder / "sandbox/gone.yaml").unlink()
    settings = load_settings(place.folder)
    rows = {check.name: check for check in check_manifests(settings)}
    assert {name: row.ok for name, row in rows.items()} == {
        "manifest coder": False,
        "manifest free": True,
        "manifest wrong": False,
        "manifest gone": True,
    }
    assert "needs DESK_KEY" in rows["manifest coder"].said and "did you mean profile?" in rows["manifest wrong"].said
    assert "NOT CONFINED, pinned by ana" in rows["manifest free"].said and "takes it out" in rows["manifest gone"].said
    monkeypatch.setenv("DESK_KEY", "hunter2-hunter2")
    [coder] = [check for check in check_manifests(settings) if check.name == "manifest coder"]
    assert coder.ok and "profile strict, reviewed by nobody" in coder.said and "hunter2" not in coder.said
    place.put("sandbox.lock", "nonsense")
    assert [check.ok for check in check_manifests(settings)] == [False]


def test_every_character_of_a_manifest_shows_to_who_reviews_it(place: Project, retinue: Command) -> None:
    place.manifest('files: {"sh.\\u202eyp": a}\nexclude: ["*.\\u202egol"]\nprofile: unconfined\n')
    said = retinue("sandbox", "check", "coder", "--project", place.folder)
    assert "\u202e" not in said.out
    assert "files.sh.\\u{202e}yp" in said.out and "of snapshots: *.\\u{202e}gol" in said.out
