"""Inside a sandbox: makes attempts, each in a process of its own with a bound, and says what came of them.

Run by a bare interpreter: standard library only. `python3 -I -S trying.py FILE` reads JSON (what stands outside) from
FILE and prints JSON: for each attempt what it got, and the error that stopped it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Outside = dict[str, Any]
Attempt = Callable[[Outside], str]

SECONDS = 4.0
_MOST = 16_000


def main() -> None:
    """Every attempt of the modules beside this one."""
    folder = Path(__file__).resolve().parent
    sys.path.insert(0, str(folder))
    outside = json.loads(Path(sys.argv[1]).read_text())
    outside["token"] = outside["nekot"][::-1]
    found = {}
    for module in outside["modules"]:
        attempts: dict[str, Attempt] = __import__(module).ATTEMPTS
        for name, attempt in attempts.items():
            found[name] = _made(attempt, outside)
    print(json.dumps(found))


def _made(attempt: Attempt, outside: Outside) -> dict[str, str]:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        os.write(writes, json.dumps(_said(attempt, outside)).encode()[:_MOST])
        os._exit(0)
    os.close(writes)
    told = b""
    while select.select([reads], [], [], SECONDS)[0] and (part := os.read(reads, _MOST)):
        told += part
    os.close(reads)
    if not told:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not told:
        why = f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "said nothing"
        return {"got": "", "error": why}
    answer: dict[str, str] = json.loads(told)
    return answer


def _said(attempt: Attempt, outside: Outside) -> dict[str, str]:
    try:
        return {"got": attempt(outside)[:2_000], "error": ""}
    except Exception as error:  # an attempt that fails has been stopped, whatever stopped it
        return {"got": "", "error": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
