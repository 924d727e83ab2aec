"""docs/sandbox.md says what manifests and profiles are: every key, every limit, and examples that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from tests.unit.sandbox.manifests.projects import Project

from retinue.host.keys import Sandbox
from retinue.sandbox.extending import Changes, Extension
from retinue.sandbox.manifests.manifest import ArchiveSource, Checkout, DirectorySource, FileSource, Manifest, Packages
from retinue.sandbox.profiles import STRICT

TEXT = (Path(__file__).resolve().parents[4] / "docs/sandbox.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def table(head: str) -> dict[str, list[str]]:
    """The rows of the tables that begin so, by their first cell."""
    rows = [line for part in TEXT.split(head)[1:] for line in part.split("\n\n")[0].splitlines()[1:]]
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: row[1:] for row in cells}


def keys(*models: type[BaseModel]) -> set[str]:
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def test_every_key_of_a_manifest_has_a_row() -> None:
    assert set(table("| key | default | what it says |\n")) == keys(Manifest, Packages)
    said = table("| key | what it says |\n")
    assert set(said) == keys(FileSource, DirectorySource, ArchiveSource, Extension)
    assert keys(Checkout) <= {"from", *re.findall(r"\w+", table("| key | default | what it says |\n")["checkouts"][1])}


def test_every_limit_has_a_row_with_its_default() -> None:
    rows = table("| limit | `strict` | of |\n")
    assert set(rows) == keys(Changes)
    assert Changes.model_validate({name: row[0] for name, row in rows.items()}).over(STRICT.limits) == STRICT.limits


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads(example: str, tmp_path: Path) -> None:
    values = yaml.safe_load(example)
    if "sandbox" in values:
        assert Sandbox.model_validate(values["sandbox"]).profiles
        return
    project = Project(tmp_path / "project")
    project.put("src/a.py", "")
    project.put("tests/test_a.py", "")
    project.manifest(example)
    assert project.manifests().info("coder").revision == 3
