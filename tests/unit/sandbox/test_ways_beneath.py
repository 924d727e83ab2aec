"""The kernel's walk and ours agree on every path, and names survive being texts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.beneath import Opener, kernel_walks, open_beneath, walk_beneath
from retinue.sandbox.names import bytes_of, text_of
from retinue.sandbox.workspaces import Workspace

pytestmark = [pytest.mark.promise("E4")]

NAMES = st.sampled_from(["a", "b", "dir", "dir/c", "dir/deep", "dir/deep/d"])
PATHS = st.lists(st.sampled_from(["a", "b", "c", "d", "dir", "deep", "l1", "l2", "..", ".", ""]), max_size=6).map(
    "/".join
)
LINKS = st.dictionaries(
    st.sampled_from(["l1", "dir/l1", "l2", "dir/deep/l2"]), PATHS | st.just("/etc/passwd") | st.just("../secret")
)


def answer(folder: Path, opener: Opener, path: str) -> object:
    space = Workspace(folder, opener=opener)
    found: list[object] = []
    for use in (
        space.read,
        space.list,
        lambda path: space.write(path, b"new"),
        lambda path: space.edit(path, "n", "m"),
    ):
        try:
            found.append(use(path))
        except SandboxRefused as error:
            found.append(error.code)
    return found


@pytest.mark.skipif(not kernel_walks(), reason="this kernel has no openat2")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LINKS, PATHS)
def test_both_ways_give_the_same_answers_and_none_leads_out(links: dict[str, str], path: str) -> None:
    with TemporaryDirectory() as folder:
        answers, trees = [], []
        for opener in (open_beneath, walk_beneath):
            tree = Path(folder) / "tree"
            (tree / "dir/deep").mkdir(parents=True)
            for name in ("a", "dir/c", "dir/deep/d"):
                (tree / name).write_text(f"n {name}")
            (Path(folder) / "secret").write_text("n secret")
            for name, target in links.items():
                os.symlink(target or ".", tree / name)
            answers.append(answer(tree, opener, path))
            trees.append(sorted(str(one.relative_to(folder)) for one in Path(folder).rglob("*")))
            assert (Path(folder) / "secret").read_text() == "n secret"
            assert "n secret" not in repr(answers)
            shutil.rmtree(tree)
        assert answers[0] == answers[1] and trees[0] == trees[1]


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_every_name_survives(name: bytes) -> None:
    text = text_of(name)
    assert bytes_of(text) == name and text.encode().decode() == text


@given(st.text(alphabet="\\x5c89af0ü\n", max_size=12))
def test_names_that_look_like_escapes_survive(text: str) -> None:
    assert text_of(bytes_of(text_of(text.encode()))) == text_of(text.encode())
    assert bytes_of(text_of(text.encode())) == text.encode()
