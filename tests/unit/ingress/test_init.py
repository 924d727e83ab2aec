"""`retinue init`: a project that parses, imports and is refused where something is in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.doubles.processes import ROOT
from tests.unit.ingress.conftest import Command

from retinue.host.settings import load_settings
from retinue.ingress.exits import Exit
from retinue.ingress.verbs.init import template_files
from retinue.policy.load import load_gate
from retinue.runs.gate import GateRequest


@pytest.fixture
def project(retinue: Command, folder: Path) -> Path:
    """A project as `init` makes it."""
    assert retinue("init", "mine").code == Exit.done
    return folder / "mine"


def test_a_project_has_all_its_parts(retinue: Command, folder: Path) -> None:
    said = retinue("init", "mine", "--json")
    files = {path.relative_to(folder / "mine").as_posix() for path in (folder / "mine").rglob("*") if path.is_file()}
    assert said.json == {"folder": "mine", "files": sorted(files)}
    assert files >= {"retinue.yaml", "agents.py", "prompts/librarian/v1.md", "policy/project.cedar", "questions.jsonl"}
    assert sum(name.startswith("documents/") for name in files) == 3
    assert not [name for name in files if name.endswith(".txt")]


def test_no_template_is_taken_for_code_of_the_room() -> None:
    assert [str(path) for path in template_files() if path.suffix == ".py"] == []


def test_the_configuration_is_good(project: Path) -> None:
    settings = load_settings(project)
    assert settings.modules == ("agents",)
    assert settings.policy_folder == project / "policy"


def test_the_policy_asks_before_a_write_and_denies_others(project: Path) -> None:
    gate = load_gate(project / "policy")

    def outcome(tool: str, side_effect: str) -> str:
        request = GateRequest(
            stage="capability",
            run_id="r",
            tenant="t",
            principal="p",
            agent="keep_note",
            route="cli",
            resource=tool,
            side_effect=side_effect,
            idempotency="idempotent" if side_effect == "write" else None,
            digest="d",
        )
        return gate.decide(request).outcome

    assert outcome("save_note", "write") == "approval_required"
    assert outcome("search", "read") == "allow"
    assert outcome("send_mail", "write") == "deny"


def test_every_question_can_be_answered_from_the_documents(project: Path) -> None:
    rows = [json.loads(line) for line in (project / "questions.jsonl").read_text("utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) >= 5
    assert all(row["question"].endswith("?") for row in rows)


@pytest.mark.parametrize("there", ["file", "full folder"])
def test_what_is_there_is_left_alone(retinue: Command, folder: Path, there: str) -> None:
    target = folder / "mine"
    if there == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    said = retinue("init", "mine")
    assert said.code == Exit.usage
    assert said.err == "retinue: mine exists and is not an empty folder: name a new one\n"
    assert target.is_file() or [path.name for path in target.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(retinue: Command, folder: Path) -> None:
    (folder / "mine").mkdir()
    assert retinue("init", "mine").code == Exit.done


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(retinue: Command, folder: Path) -> None:
    folder.chmod(0o500)
    said = retinue("init", "mine")
    folder.chmod(0o700)
    assert said.code == Exit.usage
    assert "cannot be written: Permission denied; name another folder" in said.err


def test_its_rules_begin_with_those_that_hold_without_a_policy_folder(project: Path) -> None:
    shipped = ROOT.joinpath("policy", "defaults.cedar").read_text()
    assert shipped[shipped.index("@id(") :].strip() in (project / "policy" / "project.cedar").read_text()
