"""docs/policy.md: its rules load and its examples hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_examples_of_the_policy_page_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    rules = re.findall(r"```cedar\n// (policy/\w+\.cedar)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in rules] == ["policy/base.cedar", "policy/refunds.cedar", "policy/doubts.cedar"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    for name, rule in rules:
        (tmp_path / name).write_text(rule, encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert example.count("assert ") == 8
    exec(compile(example, "docs/policy.md", "exec"), {"__name__": "policy_page"})
