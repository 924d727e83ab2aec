"""README.md and pages of docs/ as a newcomer follows them: their files are written down, their commands typed.

Runs are hosted inline with the built-in offline model. What a page says comes out is what must come out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"<!-- file: (?P<name>[\w./]+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
COMMAND = re.compile(r"^retinue (?P<words>.+?)(?: {2,}#.*)?$", re.MULTILINE)
MAIN = "from retinue.ingress.cli import console; console()"
REFUSED = "SELECT stage, rules, count(*) AS n FROM validations WHERE what = 'output' AND NOT ok GROUP BY ALL"


def write_files(page: Path, folder: Path) -> dict[str, str]:
    """Write the files a page shows into a folder; fences of one file are its parts in order."""
    files: dict[str, str] = {}
    for fence in FENCE.finditer(page.read_text(encoding="utf-8")):
        part, before = fence["text"], files.get(fence["name"])
        files[fence["name"]] = part if before is None else f"{before}\n\n{part}"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return files


def typed(folder: Path, *words: str) -> str:
    """What a Python command in that folder prints; its errors fail the test with everything it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RETINUE_")}
    environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commands(page: Path, verb: str) -> list[list[str]]:
    """The words of every `retinue VERB ...` line of a page, without `retinue`."""
    lines = [shlex.split(found["words"]) for found in COMMAND.finditer(page.read_text(encoding="utf-8"))]
    return [words for words in lines if words[0] == verb]


@pytest.fixture
def first_agent(tmp_path: Path) -> Path:
    """The project of the README, written down."""
    files = write_files(ROOT / "README.md", tmp_path)
    assert set(files) == {"retinue.yaml", "documents/hours.md", "my_agents.py", "ask.py", "questions.jsonl"}
    return tmp_path


def said_place(page: Path) -> str:
    """The place in the document that the README promises, as an answer names it."""
    found = re.search(r"characters (\d+) to (\d+) of `([\w.]+)`", page.read_text(encoding="utf-8"))
    assert found is not None
    return f"({found[3]}, {found[1]}-{found[2]})"


@pytest.mark.promise("A7")
def test_the_first_agent_answers_from_python(first_agent: Path) -> None:
    assert said_place(ROOT / "README.md") in typed(first_agent, "ask.py")


@pytest.mark.promise("I4")
def test_the_first_agent_answers_from_the_command_line_and_its_traces_answer_sql(first_agent: Path) -> None:
    readme = ROOT / "README.md"
    [run] = [words for words in commands(readme, "run") if "--local" in words]
    assert said_place(readme) in typed(first_agent, "-c", MAIN, *run)
    queries = commands(readme, "sql")
    assert len(queries) == 3
    answers = [typed(first_agent, "-c", MAIN, *words) for words in queries]
    assert "clerk  completed  success" in answers[0]
    assert json.loads(answers[1])[0]["tool"] == "search"
    assert (first_agent / "slow.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.promise("B5")
def test_the_batch_writes_an_answer_and_resumes_without_running_a_row_again(first_agent: Path) -> None:
    first, again = commands(ROOT / "README.md", "batch")
    assert "--resume" in again
    typed(first_agent, "-c", MAIN, *first, "--local")
    rows = [json.loads(line) for line in (first_agent / "answers.jsonl").read_text().splitlines()]
    assert [(row["id"], row["status"]) for row in rows] == [("q1", "completed"), ("q2", "completed")]
    typed(first_agent, "-c", MAIN, *again, "--local")
    same = [json.loads(line) for line in (first_agent / "answers.jsonl").read_text().splitlines()]
    assert [row["run_id"] for row in same] == [row["run_id"] for row in rows]


@pytest.mark.promise("B1")
@pytest.mark.rule("R2")
def test_the_examples_of_the_workflows_page_do_what_they_say(tmp_path: Path) -> None:
    files = write_files(ROOT / "docs/workflows.md", tmp_path)
    assert set(files) == {"retinue.yaml", "flows.py", "main.py"}
    assert files["main.py"].count("assert ") == 8
    typed(tmp_path, "main.py")
    assert (tmp_path / "notes.txt").read_text() == "first edition\n"


@pytest.mark.promise("A10", "G1")
def test_the_example_of_the_context_page_does_what_it_says(tmp_path: Path) -> None:
    files = write_files(ROOT / "docs/context.md", tmp_path)
    assert set(files) == {"retinue.yaml", "readers.py", "main.py"}
    assert files["main.py"].count("assert ") == 7
    typed(tmp_path, "main.py")


@pytest.mark.promise("F5")
def test_the_example_of_the_output_page_does_what_it_says(tmp_path: Path) -> None:
    files = write_files(ROOT / "docs/output.md", tmp_path)
    assert set(files) == {"retinue.yaml", "finders.py", "main.py"}
    assert files["main.py"].count("assert ") == 3
    typed(tmp_path, "main.py")
    [checked] = json.loads(typed(tmp_path, "-c", MAIN, "sql", "--json", REFUSED))
    assert checked == {"stage": "rules", "rules": ["short"], "n": 1}


@pytest.mark.promise("G2", "A11")
def test_the_example_of_the_memory_page_does_what_it_says(tmp_path: Path) -> None:
    files = write_files(ROOT / "docs/memory.md", tmp_path)
    assert set(files) == {"retinue.yaml", "policy/rules.cedar", "hosts.py", "main.py"}
    assert files["main.py"].count("assert ") == 5
    typed(tmp_path, "main.py")
    written = json.loads(typed(tmp_path, "-c", MAIN, "memory", "list", "--json"))
    assert sorted((one["scope"], one["owner"], one["agent"]) for one in written) == [
        ("agent", "host", "reflect"),
        ("principal", "ana", "host"),
    ]


@pytest.mark.promise("K4")
def test_the_agent_of_the_bring_your_own_page_is_adopted(tmp_path: Path) -> None:
    files = write_files(ROOT / "docs/bring-your-own-agent.md", tmp_path)
    assert set(files) == {"retinue.yaml", "flows.py", "model.jsonl", "main.py"}
    keys = [line.split()[1:] for line in typed(tmp_path, "main.py").splitlines()]
    assert keys == [["adopt", "ok"], ["call", "ok"], ["model", "ok"]]
