"""The door of the command line: quick to open, and every error leaves it as one message and a code."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.cli import VERBS, cli
from retinue.ingress.exits import MEANING, Exit, exit_for
from retinue.runs.errors import ConfigError, RetinueError, RunCanceled, RunFailed, StoreBusy, UnknownName

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"ray", "duckdb", "pyarrow", "pydantic", "pydantic_settings", "cedarpy", "apsw", "httpx", "rich", "yaml"}


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    command = [sys.executable, "-m", "retinue.ingress.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_help_starts_in_half_a_second_of_a_processor() -> None:
    used = []
    for _ in range(3):
        before = os.times()
        assert start("--help").returncode == 0
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) < 0.5


def test_help_loads_no_verb_and_no_heavy_library() -> None:
    script = "import sys; from retinue.ingress.cli import main; main(['--help']); print(sorted(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    loaded = set(eval(said.stdout.splitlines()[-1]))
    assert HEAVY & loaded == set()
    assert not [name for name in loaded if name.startswith("retinue.ingress.verbs")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["ps"], ["ps", "--json"]])
@pytest.mark.parametrize(("place", "why"), [("/dev/full", "No space left"), ("&-", "without a standard output")])
def test_an_answer_that_cannot_be_written_is_told(words: list[str], place: str, why: str, folder: Path) -> None:
    (folder / "retinue.yaml").write_text("principal: ana\n")
    line = shlex.join([sys.executable, "-m", "retinue.ingress.cli", *words])
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run(["sh", "-c", f"{line} >{place}"], env=env, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (said.returncode, why in said.stderr, said.stderr.count("\n")) == (Exit.runtime, True, 1), said.stderr


ENDS = """
import sys, threading
from retinue.ingress.cli import console

def work():
    threading.Event().wait(0.5)
    print("the thread is done")

threading.Thread(target=work).start()
sys.argv = ["retinue", *{words}]
console()
"""


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["nothing"], 2)])
def test_a_command_ends_at_once_but_not_before_its_threads(words: list[str], code: int) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    script = ENDS.replace("{words}", repr(words))
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout.splitlines()[-1]) == (code, "the thread is done")


def test_help_names_every_verb(retinue: Command) -> None:
    said = retinue("--help")
    assert said.code == 0
    assert [verb for verb in VERBS if f"\n  {verb} " not in said.out] == []


def test_without_a_verb_there_is_help(retinue: Command) -> None:
    assert "Verbs:" in retinue().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_speaks_json_and_names_its_project(retinue: Command, verb: str) -> None:
    said = retinue(verb, "--help")
    assert said.code == 0
    assert "--json" in said.out
    assert "--project" in said.out


def test_a_verb_that_does_not_exist_is_told_with_close_matches(retinue: Command) -> None:
    said = retinue("cancl")
    assert (said.code, said.out) == (Exit.usage, "")
    assert "No such command 'cancl'. Did you mean 'cancel'?" in said.err


def test_an_error_is_one_message_without_a_traceback(retinue: Command, folder: Path) -> None:
    (folder / "retinue.yaml").write_text("tenat: acme\n")
    said = retinue("ps")
    assert said.code == Exit.usage
    assert said.out == ""
    assert said.err == f"retinue: {folder / 'retinue.yaml'} line 1: there is no key 'tenat'; did you mean 'tenant'?\n"


@pytest.mark.parametrize(
    "arguments", [("ps",), ("cancl",), ("run",), ("ps", "--limit", "none"), ("inspect", "nothing")]
)
def test_an_error_is_json_when_json_is_spoken(retinue: Command, folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "retinue.yaml").write_text("tenat: acme\n")
    said = retinue(*arguments, "--json")
    assert said.err == ""
    assert set(said.json) == {"error"}
    assert said.json["error"]["exit"] == said.code == Exit.usage
    assert said.json["error"]["message"]


def test_a_traceback_is_shown_on_request(folder: Path) -> None:
    (folder / "retinue.yaml").write_text("tenat: acme\n")
    said = start("ps", "--project", str(folder), RETINUE_DEBUG="1")
    assert said.returncode == Exit.usage
    assert "Traceback" in said.stderr
    assert "ConfigError" in said.stderr


def test_a_reader_that_goes_away_is_no_error_to_shout_about() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    script = "import sys; from retinue.ingress.cli import main; main(['--help'])"
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([sys.executable, "-u", "-c", script], env=env, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(""), Exit.usage),
        (UnknownName(""), Exit.usage),
        (RunFailed(""), Exit.failed),
        (RunCanceled(""), Exit.canceled),
        (StoreBusy(""), Exit.runtime),
        (RetinueError(""), Exit.runtime),
        (TimeoutError(), Exit.timeout),
        (KeyError("x"), Exit.internal),
    ],
)
def test_an_error_leads_to_a_code(error: Exception, code: Exit) -> None:
    assert exit_for(error) is code


def test_every_code_has_a_meaning() -> None:
    assert set(MEANING) == set(Exit)


def test_a_defect_is_called_one(retinue: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(cli, "main", broken)
    said = retinue("ps", "--json")
    assert said.code == Exit.internal
    assert said.json["error"]["kind"] == "KeyError"
    assert "internal error: KeyError: 'lost'" in json.loads(said.out)["error"]["message"]
