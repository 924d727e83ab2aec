"""Other processes of a test: small Python programs that say what they reached, and are gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BOUND = 30.0


class Other:
    """A process that was started by a test. `wait_for` reads its lines until the one that is expected."""

    def __init__(self, arguments: list[str]) -> None:
        paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            text=True,
        )

    def wait_for(self, word: str) -> str:
        """The first line that begins with the word; fails when the process ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.strip()
        raise AssertionError(f"the process ended with {self.process.wait(_BOUND)} before it said {word!r}")

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_BOUND)

    def freeze(self) -> None:
        """Stop it where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def ended(self) -> int:
        """Its return code, when it has ended."""
        return self.process.wait(_BOUND)


@contextmanager
def python(code: str, *arguments: str | Path) -> Iterator[Other]:
    """Run code in another Python with the project on its path."""
    with running(["-c", code, *map(str, arguments)]) as other:
        yield other


@contextmanager
def running(arguments: list[str]) -> Iterator[Other]:
    """Run another Python; it does not outlive the block."""
    other = Other(arguments)
    try:
        yield other
    finally:
        if other.process.poll() is None:
            other.kill()
        for pipe in (other.process.stdin, other.process.stdout):
            if pipe is not None:
                pipe.close()
