"""docs/patterns.md and examples/patterns: the page's code is the example's, and the demo says what it should."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.e2e.test_docs import ROOT, typed, write_files

PAGE = ROOT / "docs" / "patterns.md"
EXAMPLE = ROOT / "examples" / "patterns"

SAYS = [
    "article('tea'): completed (success)\n\"From the hills, picked by hand, drunk hot: tea.\"",
    "chain 'article' stopped after 'outline': an outline has at least three points",
    '"We are sorry that the paper was late."',
    '"Thank you for your letter."',
    '"failures": {\n    "law": {\n      "reason": "model_failure"',
    '"winner": "true"',
    '"votes": {\n    "true": 3,\n    "false": 1\n  }',
    '"unheard": 1',
    '"Mira Holt built the bridge for 40,000. Who paid could not be found out."',
    '"best_round": 2,\n  "rounds": 2,\n  "stop": "accepted"',
    '"You get the second payment back."',
    "reception → subscriptions → accounts → reception is a cycle",
    "boundary      planned: passed at position",
    "boundary      joined: passed at position",
    "children      reporter: 3 of 3 done, 1 failed",
]


@pytest.mark.promise("B1")
def test_the_code_of_the_patterns_page_runs_and_is_the_examples(tmp_path: Path) -> None:
    project = tmp_path / "patterns"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(".retinue", "__pycache__"))
    assert set(write_files(PAGE, project)) == {"newsroom.py"}
    told = (EXAMPLE / "newsroom.py").read_text("utf-8").split('"""', 2)[2]
    assert (project / "newsroom.py").read_text("utf-8").split() == told.split()
    printed = typed(project, "demo.py")
    assert [words for words in SAYS if words not in printed] == [], printed


def test_every_pattern_of_the_public_face_has_its_section() -> None:
    names = {path.stem for path in (ROOT / "runs" / "patterns").glob("*.py")} - {"__init__", "composition"}
    sections = PAGE.read_text("utf-8").split("\n## ")
    assert names == {section.splitlines()[0] for section in sections[1:-1]}
    for section in sections[1:-1]:
        assert "| boundary | passed when | a crash after it |" in section
