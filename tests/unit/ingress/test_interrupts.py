"""Ctrl-C: the first is a clean stop, the second an immediate one; the exit code says which signal it was."""

from __future__ import annotations

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
