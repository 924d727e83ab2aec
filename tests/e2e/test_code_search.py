"""The example that tries eight edits in forks of one workspace, killed in the middle."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doubles.processes import ROOT
from tests.e2e.conftest import environment

from retinue.sandbox.backends.bubblewrap import find_program

pytestmark = [
    pytest.mark.promise("E1", "E3"),
    pytest.mark.skipif(find_program() is None, reason="there is no bwrap on this machine"),
]

KILLED = re.compile(r"killed with SIGKILL: (\w+) has no owner")


def test_the_best_of_eight_edits_is_kept_though_the_search_is_killed(tmp_path: Path) -> None:
    project = tmp_path / "code_search"
    shutil.copytree(
        ROOT / "examples" / "code_search", project, ignore=shutil.ignore_patterns(".retinue", "__pycache__")
    )
    done = subprocess.run(
        [sys.executable, "demo.py"], cwd=project, env=environment(), text=True, capture_output=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert KILLED.search(done.stdout)
    rows = dict(re.findall(r"^ +(\d) +(.+)$", done.stdout, re.MULTILINE))
    assert rows["4"].split()[:2] == ["7", "1"] and rows["8"].split()[:2] == ["8", "0"]
    assert "<- kept" in rows["8"] and "did not end in 5 s" in rows["5"] and "change the tests" in rows["7"]
    assert "sorted(spans)" in done.stdout and "max(end" in done.stdout
    calls = dict(re.findall(r"^(sandbox\.\w+) +(\d+)", done.stdout, re.MULTILINE))
    assert (calls["sandbox.adopt"], calls["sandbox.open"], calls["sandbox.exec"]) == ("1", "8", "9")
    assert "retinue: " not in done.stderr
