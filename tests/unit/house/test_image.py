"""The Dockerfile, as far as it can be held without building it: what it picks of the lock, who it runs as."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture
def dockerfile(root: Path) -> str:
    """The instructions, each on one line."""
    return (root / "Dockerfile").read_text("utf-8").replace("\\\n", "")


@pytest.fixture
def tools(dockerfile: str) -> list[str]:
    """The packages that the image is built with."""
    found = re.search(r"printf '%s\\n' ([a-z -]+?) +\|", dockerfile)
    assert found is not None
    return found[1].split()


def test_the_image_is_built_with_the_build_system_and_all_it_needs(tools: list[str]) -> None:
    needs = [Requirement(text) for text in metadata.requires("hatchling") or []]
    wanted = {canonicalize_name(need.name) for need in needs if need.marker is None or need.marker.evaluate()}
    assert wanted | {"uv", "hatchling"} == set(tools)


def test_what_is_picked_of_the_lock_keeps_its_version_and_all_its_hashes(
    root: Path, tmp_path: Path, dockerfile: str, tools: list[str]
) -> None:
    program = re.search(r"echo '(NR == FNR .*?)' > pick\.awk", dockerfile)
    assert program is not None
    (tmp_path / "names").write_text("\n".join(tools) + "\n")
    command = ["awk", program[1], str(tmp_path / "names"), str(root / "requirements.lock")]
    picked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert picked.returncode == 0, picked.stderr
    lock = re.split(r"\n(?=\S)", (root / "requirements.lock").read_text("utf-8").strip())
    assert picked.stdout.strip() == "\n".join(block for block in lock if block.partition("==")[0] in tools)


def test_the_image_runs_as_a_user_and_holds_no_build_stage(dockerfile: str) -> None:
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    final = stages[1]
    assert re.findall(r"^USER (.+)$", final, re.MULTILINE) == ["1000:1000"]
    assert final.index("USER ") > final.index("RUN ")
    copied = re.findall(r"^COPY (.+)$", final, re.MULTILINE)
    assert copied == ["--from=build /opt/retinue /opt/retinue", "${PROJECT} /home/retinue/project"]
    assert "pip" not in final


def test_nothing_that_was_made_here_goes_into_the_image(root: Path) -> None:
    left_out = {line for line in (root / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")}
    assert {".*", "**/.retinue", "**/__pycache__", "**/out", "tests"} <= left_out
