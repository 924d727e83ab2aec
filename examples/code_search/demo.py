"""Eight edits of a project whose tests fail, tried at once in forks of a workspace; killed in the middle, resumed.

    python demo.py

Its programs run shut in (bubblewrap on Linux); a scripted model (model.jsonl) proposes the edits: nothing to
configure, no network.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RETINUE = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]
TASK = {"file": "intervals.py", "complaint": "merge() loses spans, and does not join those that touch."}
AGAIN = "again"
"""Ends the line that is told when the search has heard of an attempt that ended."""
HEARD = 2
"""So many such lines are waited for before the kill: some attempts have ended then, some run, some have not begun."""

SANDBOXED = """
    select tool, count(*) as calls, count(*) filter (result = 'ok') as ok, count(distinct run_id) as runs
    from tool_calls where tool like 'sandbox.%' group by all order by tool"""


def kill_in_the_middle() -> str:
    """Start the search, and kill its process with SIGKILL while attempts run; the run's id."""
    words = ["run", "search", "--input", json.dumps(TASK), "--local", "--stream"]
    print(f"$ retinue {shlex.join(words)}", flush=True)
    process = subprocess.Popen(
        [*RETINUE, *words], cwd=HERE, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    too_long = threading.Timer(120, process.kill)
    too_long.start()
    run_id, heard = "", 0
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        run_id = run_id or line.removeprefix("run ").strip()
        heard += line.strip().endswith(AGAIN)
        if heard == HEARD:
            break
    too_long.cancel()
    if heard < HEARD:
        sys.exit(f"the search was to be killed while its attempts run, and ended before: code {process.wait()}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    print(f"   killed with SIGKILL: {run_id} has no owner now", flush=True)
    return run_id


def retinue(*words: str) -> str:
    """What a `retinue` command prints. A failure ends the demo."""
    print(f"\n$ retinue {shlex.join(words)}", flush=True)
    done = subprocess.run([*RETINUE, *words], cwd=HERE, text=True, capture_output=True, timeout=120)
    if done.returncode:
        sys.exit(f"it ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def show(found: dict[str, Any]) -> None:
    """Print the table of attempts, and what was kept."""
    print("\n way  passed  failed  idea")
    for one in found["tried"]:
        verdict = f"{one['passed']:>6}  {one['failed']:>6}" if not one["note"] else f"{'-':>6}  {'-':>6}"
        why = f" ({one['note']})" if one["note"] else ""
        kept = "  <- kept" if one["number"] == found["kept"] else ""
        print(f"{one['number']:>4}  {verdict}  {one['idea']}{why}{kept}")
    print(f"\n{found['file']}")


def main() -> None:
    """Search, die, go on, and look at what happened."""
    run_id = kill_in_the_middle()
    show(json.loads(retinue("wait", run_id, "--json"))["output"])
    print(retinue("sql", SANDBOXED))


if __name__ == "__main__":
    main()
