"""Ctrl-C: the first is a clean stop, the second an immediate one; the exit code says which signal it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retinue.ingress.exits import Exit

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import asyncio, sys
from retinue.ingress.interrupts import run_until_interrupted

async def work():
    try:
        print("begun", flush=True)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("stopping", flush=True)
        if "slow" in sys.argv:
            await asyncio.Event().wait()
        raise
    finally:
        print("cleaned", flush=True)

run_until_interrupted(work())
"""


def begin(*arguments: str) -> subprocess.Popen[str]:
    """A process that works until it is stopped."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert read(process) == "begun"
    return process


def read(process: subprocess.Popen[str]) -> str:
    """The next line it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, Exit.interrupted), (signal.SIGTERM, Exit.terminated)])
def test_the_first_signal_stops_cleanly(number: signal.Signals, code: Exit) -> None:
    process = begin()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (out.split(), err, process.returncode) == (["stopping", "cleaned"], "", code)


def test_the_second_signal_stops_at_once() -> None:
    process = begin("slow")
    process.send_signal(signal.SIGINT)
    assert read(process) == "stopping"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err.strip(), process.returncode) == ("", "stopped at once", Exit.interrupted)


NAPS = """
from retinue import Context, workflow

@workflow
async def naps(ctx: Context, seconds: int) -> None:
    await ctx.sleep(seconds)
"""
COMMAND = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]


def begin_command(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A command in a project's folder that has told its run."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([*COMMAND, *words], cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline().startswith("run ")
    return process


def test_a_run_that_is_stopped_says_how_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "retinue.yaml").write_text("modules: [naps]\n")
    (tmp_path / "naps.py").write_text(NAPS)
    process = begin_command(tmp_path, "run", "naps", "--input", "600", "--local")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.interrupted
    assert "stopped watching; `retinue wait " in err and "`retinue cancel " in err


@pytest.mark.promise("E2")
def test_a_program_that_is_run_by_hand_and_stopped_is_not_begun_again(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "policy").mkdir()
    (tmp_path / "retinue.yaml").write_text("principal: bob\n")
    (tmp_path / "policy" / "rules.cedar").write_text('@id("all") permit (principal, action, resource);')
    (tmp_path / "sandbox" / "plain.yaml").write_text("profile: unconfined\n")
    process = begin_command(tmp_path, "sandbox", "exec", "plain", "--local", "--", "sleep", "600")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.terminated and "is canceled" in err
    listed = subprocess.run(
        [*COMMAND, "ps", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [run["status"] for run in json.loads(listed.stdout)] == ["canceled"]
