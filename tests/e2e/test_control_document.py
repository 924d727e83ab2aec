"""docs/control.md as a reader follows it: its files are written down, its commands typed in order in processes of
their own, and what they print must be what the page shows, but for ids, times, durations and places in a journal.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.forked import forking
from tests.e2e.conftest import BOUND, Project, environment

PAGE = Path(__file__).parents[2] / "docs/control.md"
FENCE = re.compile(r"<!-- file: (?P<name>[\w./]+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
ID = re.compile(r"\b(?:[0-9a-f]{20})?([0-9a-f]{12})\b")
STEERING = {"retry", "dlq", "pause", "resume", "fork"}
CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"), "(moment)"),
    (re.compile(r"\b\d+\.\d s\b|\b\d+ s\b|\b\d+ m \d\d s\b"), "(duration)"),
    (re.compile(r"position \d+, epoch above \d+"), "(cursor)"),
    (re.compile(r" +"), " "),
)


def commands() -> Iterator[tuple[str, str]]:
    """(command, output) of the page, in order."""
    for console in CONSOLE.finditer(PAGE.read_text("utf-8")):
        for part in re.split(r"^\$ ", console[1], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


class Names:
    """Ids of the page and of this run, told apart by the order in which they are first seen."""

    def __init__(self) -> None:
        self.page: dict[str, str] = {}
        self.here: dict[str, str] = {}

    def plain(self, text: str, known: dict[str, str]) -> str:
        """A text with what changes from run to run named by what it is."""
        named = ID.sub(lambda found: known.setdefault(found[1], f"(id {len(known) + 1})"), text)
        for pattern, word in CHANGING:
            named = pattern.sub(word, named)
        return named.strip()

    def typed(self, command: str) -> list[str]:
        """A command of the page with the ids of this run."""
        real = {token: name for name, token in self.here.items()}
        return shlex.split(ID.sub(lambda found: real[self.page[found[1]]], command))


def say(project: Project, words: list[str]) -> str:
    """What a command prints, both streams in one."""
    assert words[0] == "retinue"
    _, said, _ = forking().run(words[1:], project.folder, project.environ, BOUND, merged=True)
    return said


@pytest.fixture
def example(tmp_path: Path) -> Project:
    """The project of the page, written down."""
    made = Project(tmp_path, environment())
    files = {fence["name"]: fence["text"] for fence in FENCE.finditer(PAGE.read_text("utf-8"))}
    assert set(files) == {"retinue.yaml", "flows.py", "policy/project.cedar"}
    for name, text in files.items():
        made.write(name, text)
    return made


@pytest.mark.timeout(300)
@pytest.mark.promise("A8")
@pytest.mark.promise("A9")
@pytest.mark.promise("B4")
@pytest.mark.promise("C2")
@pytest.mark.promise("I7")
def test_the_commands_of_the_page_print_what_it_shows(example: Project) -> None:
    names = Names()
    shown = list(commands())
    assert {"run", "inbox", "ps", "inspect", "signal", "answer", "approve", "wait", "diff", *STEERING} <= {
        shlex.split(command)[1] for command, _ in shown
    }
    for command, output in shown:
        said = say(example, names.typed(command))
        if output.endswith("…\n"):
            output, said = output.removesuffix("…\n"), said.splitlines()[0]
        assert names.plain(said, names.here) == names.plain(output, names.page), f"$ {command}\n{said}"


@pytest.mark.promise("B4")
def test_a_tree_that_waits_for_three_things_says_so_from_any_of_its_runs(example: Project) -> None:
    say(example, ["retinue", "run", "release", "2.4", "--local"])
    runs = {run["target"]: run for run in json.loads(say(example, ["retinue", "ps", "--all", "--json"]))}
    assert set(runs) == {"release", "website", "announce", "page"}
    for run in runs.values():
        found = json.loads(say(example, ["retinue", "inbox", run["run_id"], "--json"]))
        assert found["more"] == 0
        seen = {(one["kind"], one["target"], one["depth"], one["holds_up"]) for one in found["waits"]}
        assert seen == {
            ("event", "release", 0, 0),
            ("child", "release", 0, 0),
            ("child", "website", 1, 1),
            ("input", "announce", 2, 2),
            ("approval", "page", 2, 2),
        }
    [asks] = [one for one in found["waits"] if one["kind"] == "approval"]
    assert [place["target"] for place in asks["path"]] == ["release", "website", "page"]
    assert (asks["goal"], asks["rules"]) == ("2.4", ["pages.ask-first"])
    assert asks["reason"] == "a page goes out only after a person has said yes (rule pages.ask-first)"
