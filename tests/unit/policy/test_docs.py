"""docs/policy.md: its rules load and its examples hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retinue.ingress.policy_cases import read_cases, run_cases
from retinue.policy.load import load_gate

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


def test_the_cases_of_the_policy_page_hold(tmp_path: Path) -> None:
    text = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    for name, rule in re.findall(r"```cedar\n// policy/(\w+\.cedar)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(rule, encoding="utf-8")
    (cases,) = re.findall(r"```yaml\n(defaults:.*?)```", text, re.DOTALL)
    (tmp_path / "cases.yaml").write_text(cases, encoding="utf-8")
    checked = run_cases(load_gate(tmp_path), read_cases(tmp_path / "cases.yaml"))
    assert len(checked) == 3 and [one.problems for one in checked] == [(), (), ()]
