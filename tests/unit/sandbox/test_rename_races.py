"""While something in the workspace swaps directories for links that lead out, nothing outside is read or written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.beneath import Opener, kernel_walks, open_beneath, walk_beneath
from retinue.sandbox.workspaces import Workspace

pytestmark = [pytest.mark.promise("E4")]
TRIES = 1_000
MOST_TRIES = 20_000
CODES = {"outside", "not_found", "not_a_directory", "not_a_file", "denied"}

SWAPPER = """
import os, shutil, sys
kind, target = sys.argv[1:]

def put(here):
    try:
        os.rename(here, "name")
    except OSError:  # what a write has made there meanwhile
        shutil.rmtree("name", ignore_errors=True)
        return
    os.rename("name", here)

print("ready", flush=True)
while True:
    put("real")
    os.mkfifo("trap") if kind == "pipe" else os.symlink(target, "trap")
    put("trap")
    os.unlink("trap")
"""


@contextmanager
def swapping(tree: Path, kind: str, target: str) -> Iterator[None]:
    """A program that puts what is `real` and a trap at one name, in turn, until the test is done."""
    arguments = [sys.executable, "-c", SWAPPER, kind, target]
    with subprocess.Popen(arguments, cwd=tree, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None and program.stdout.readline() == b"ready\n"
            yield
            assert program.poll() is None
        finally:
            program.kill()


@pytest.fixture(params=[open_beneath, walk_beneath])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param is open_beneath and not kernel_walks():
        pytest.skip("this kernel has no openat2")
    opener: Opener = request.param
    return opener


@pytest.mark.parametrize("target", ["absolute", "../outside", "deep/../../outside"])
def test_no_try_gets_out(tmp_path: Path, opener: Opener, target: str) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (tree / "real").mkdir(parents=True)
    (tree / "deep").mkdir()
    (outside / "file").write_text("secret")
    (tree / "real/file").write_text("own")
    space = Workspace(tree, opener=opener)
    seen: set[str | None] = set()
    codes: list[str] = []

    def use(number: int) -> None:
        with noted(codes):
            seen.add(space.read("name/file").text)
        with noted(codes):
            space.write(f"name/new{number % 7}", b"x")
        with noted(codes):
            space.edit("name/file", "own", "own")
        with noted(codes):
            assert {entry.path for entry in space.list("name")} <= {"name/file", *(f"name/new{n}" for n in range(7))}

    with swapping(tree, "link", str(outside) if target == "absolute" else target):
        for number in range(MOST_TRIES):
            use(number)
            if number > TRIES and codes.count("outside") > 100 and seen:
                break
    assert os.listdir(outside) == ["file"] and (outside / "file").read_text() == "secret"
    assert seen == {"own"} and set(codes) <= CODES
    assert codes.count("outside") > 100


def test_a_file_that_becomes_a_pipe_is_never_waited_for(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "real").write_text("own")
    space = Workspace(tmp_path, opener=opener)
    codes: list[str] = []
    with swapping(tmp_path, "pipe", ""):
        for number in range(MOST_TRIES):
            with noted(codes):
                assert space.read("name").text == "own"
            with noted(codes):
                space.edit("name", "own", "own")
            if number > TRIES and codes.count("not_a_file") > 10:
                break
    assert "not_a_file" in codes and set(codes) <= CODES


@contextmanager
def noted(codes: list[str]) -> Iterator[None]:
    with suppress(SandboxRefused):
        try:
            yield
        except SandboxRefused as error:
            codes.append(error.code)
