"""docs/side-effects.md: its project is written down and run, and what it asserts of the book holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.test_docs import ROOT, typed, write_files


@pytest.mark.promise("C4")
@pytest.mark.promise("C5")
def test_the_examples_of_the_side_effects_page_do_what_they_say(tmp_path: Path) -> None:
    files = write_files(ROOT / "docs/side-effects.md", tmp_path)
    assert set(files) == {"retinue.yaml", "flows.py", "policy/project.cedar", "main.py"}
    assert files["main.py"].count("assert ") == 7
    typed(tmp_path, "main.py")
    kinds = [line.split()[0] for line in (tmp_path / "book.txt").read_text().splitlines()]
    assert kinds == ["charge", "claim", "mail", "mail", "mail", "mail", "announce"]
