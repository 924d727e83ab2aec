"""A process that forks lives: everything is imported once, then a life costs a fork instead of a start.

It has no threads, no loops and no store of its own, so that a fork is safe. Reads a life a line, prints what
became of its process: 0, an exit code, or minus the signal that killed it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

import tests.crash.workbench  # imported here once, with all of the project, instead of in every life
from tests.crash.living import Life, life_of, live, order_of
from tests.crash.points import Finder
from tests.doubles.processes import Other

BOUND = 60
"""Seconds after which a life that hangs is ended (SIGALRM)."""
CODE = "from tests.crash.killing import serve; serve()"


def live_in(server: Other, life: Life) -> int:
    """Live a life in a fork of the server; how its process ended."""
    server.tell(order_of(life))
    return int(server.wait_for("ended").split()[1])


def serve() -> None:
    """Fork a life for every line, until there are no more lines."""
    assert tests.crash.workbench and Finder("port")
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        assert threading.active_count() == 1, "a fork would lose a thread"
        life = life_of(line)
        pid = os.fork()
        if pid == 0:
            _live(life)
        _, status = os.waitpid(pid, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


def _live(life: Life) -> None:
    """The forked process: it never returns."""
    signal.alarm(BOUND)
    code = 1
    try:
        handle = os.open(Path(life.folder) / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        live(life)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
