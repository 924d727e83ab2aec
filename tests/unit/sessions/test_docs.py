"""docs/tools.md: its examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_examples_of_the_tools_page_run() -> None:
    text = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    names: dict[str, object] = {"__name__": "tools_page"}
    for example in examples:
        exec(compile(example, "docs/tools.md", "exec"), names)
    assert "main" in names
