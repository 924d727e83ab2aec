"""Runs Retinue and its peers in turn, and writes benchmarks/results.json and benchmarks/RESULTS.md.

    make bench-peers
    python benchmarks/peers/run.py [--rounds N] [--limit SECONDS] [--note TEXT] [--only NAME ...]

Every script is a process of its own with a time limit; nothing else runs meanwhile. A round is Retinue, then each
peer; of several rounds the best figure counts, for everyone alike. What a run did not measure stays in results.json as
it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers import VARIABLE
from table import Figure, Figures, best_of, goals_table, merged, results_table, rows_of, ways_table
from tests.doubles.postgres import NoServer, PostgresServer, programs_folder

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
SKIPPED = 3  # exit status of a script that cannot run here and said why

VERSIONS = """
import sqlite3
from importlib import metadata
for name in ("langgraph", "langgraph-checkpoint-sqlite", "dbos", "temporalio"):
    print(name, metadata.version(name))
print("SQLite", sqlite3.sqlite_version)
"""


@dataclass(frozen=True)
class Script:
    """One side of the comparison: its file below benchmarks/, and arguments."""

    name: str
    file: str
    arguments: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it runs in Retinue's environment."""
        return self.file == OWN.file


OWN = Script("retinue", "own.py", ("sqlite",))
SHARED = Script("retinue-postgres", "own.py", ("postgres",))
PEERS = (
    Script("langgraph", "peers/langgraph_peer.py"),
    Script("dbos-sqlite", "peers/dbos_peer.py", ("sqlite",)),
    Script("dbos-postgres", "peers/dbos_peer.py", ("postgres",)),
    Script("temporal", "peers/temporal_peer.py"),
)


def figures_of(script: Script, peers_python: Path, limit: float, notes: list[str]) -> list[Figure]:
    """What the script printed, also when it ran out of time or failed; then a note says so."""
    print(f"-- {script.name}", flush=True)
    command = [sys.executable if script.own else str(peers_python), str(BENCHMARKS / script.file), *script.arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=BENCHMARKS, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        out, err = stopped(process)
        notes.append(f"{script.name}: stopped after {limit:.0f} s; what it had measured by then counts.")
    else:
        if process.returncode:
            notes.append(f"{script.name}: {reason(process.returncode, err.decode(errors='replace'))}")
    figures = list(parsed(out.decode(errors="replace").splitlines()))
    for figure in figures:
        print(f"{figure.name:34} {figure.value:>12,.2f} {figure.unit:4} {figure.how}", flush=True)
    return figures


def stopped(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What a script printed that ran too long: asked first, as it may have a server to stop, then killed."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate(timeout=30)


def reason(status: int, errors: str) -> str:
    """Why a script measured nothing, or not everything: its last line of errors."""
    last = errors.strip().splitlines()[-1] if errors.strip() else "it printed no reason"
    return last if status == SKIPPED else f"ended with {status}: {last}"


def parsed(lines: Iterable[str]) -> Iterable[Figure]:
    """Figures among the lines; libraries print theirs in between."""
    return (Figure(**json.loads(line)) for line in lines if line.startswith('{"name":'))


def machine(peers_python: Path) -> list[str]:
    """Cores, processor, kernel, Python, the commit and the peers' versions, a line each."""
    processor = next(
        (line.split(":")[1].strip() for line in lines_of(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor() or "unknown processor",
    )
    changed = " with changes" if said("git", "status", "--porcelain", "--untracked-files=no") else ""
    return [
        f"{os.cpu_count()} cores of {processor}, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}; commit {said('git', 'rev-parse', '--short=12', 'HEAD')}{changed}",
        ", ".join([*said(str(peers_python), "-c", VERSIONS).splitlines(), postgres_version()]),
        f"load average over a minute at the start: {os.getloadavg()[0]:.1f}",
    ]


def lines_of(path: Path) -> list[str]:
    """Lines of a file, none where there is no such file."""
    return path.read_text().splitlines() if path.exists() else []


def said(*command: str) -> str:
    """What a short command printed; nothing when it failed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def postgres_version() -> str:
    """The version of the server."""
    try:
        return said(str(programs_folder() / "postgres"), "--version")
    except NoServer:
        return "no PostgreSQL"


@contextmanager
def server_for_all() -> Iterator[None]:
    """One server for every side that needs one; without PostgreSQL those sides say that they cannot run."""
    try:
        with PostgresServer() as server:
            os.environ[VARIABLE] = server.fresh()
            yield
    except NoServer:
        yield


def write(best: Figures, facts: list[str], notes: list[str]) -> None:
    """results.json, with what was not measured kept, and RESULTS.md."""
    path = BENCHMARKS / "results.json"
    rows = merged(json.loads(path.read_text()) if path.exists() else [], rows_of(best))
    path.write_text(json.dumps(rows, indent=1) + "\n")
    (BENCHMARKS / "RESULTS.md").write_text(text_of(best, facts, notes))


def text_of(best: Figures, facts: list[str], notes: list[str]) -> str:
    """RESULTS.md as a whole."""
    listed = "\n".join(f"- {fact}" for fact in facts)
    noted = "\n".join(f"- {note}" for note in dict.fromkeys(notes)) or "- none"
    return f"""# Retinue beside its peers

Written by `make bench-peers`; the scripts in `peers/` say what was chosen for each engine and why. All figures are of
one run, engine after engine in rounds, the best of an engine's rounds; compare ratios, not different machines.

{listed}

## Work and engines

{results_table(best)}

A step is a no-op that gives back 100 bytes, on disk before the next one begins (LangGraph's tasks promise a little
less). LangGraph's children are tasks inside one run, those of the others have runs of their own; Retinue's cross to
other processes. Temporal's test server keeps nothing on disk and counts as no durable peer.

## Goals

{goals_table(best)}

## Which way gave each figure

{ways_table(best)}

## Notes of this run

{noted}
"""


def main() -> None:
    """Measure in turns, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-peers", help="the peers' environment")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=420.0, help="seconds that one script may take")
    parser.add_argument("--note", action="append", default=[], help="a line for RESULTS.md, such as: noisy machine")
    parser.add_argument("--only", nargs="+", choices=[script.name for script in PEERS], help="these peers alone")
    options = parser.parse_args()
    python = options.venv.absolute() / "bin" / "python"  # the scripts run in another folder
    if shutil.which(str(python)) is None:
        parser.error(f"{options.venv} holds no Python: `make bench-peers` makes it from peers/requirements.txt")
    facts, notes, figures = machine(python), list(options.note), list[Figure]()
    peers = [script for script in PEERS if options.only is None or script.name in options.only]
    with server_for_all():
        for script in [OWN, SHARED, *peers] * options.rounds:
            figures += figures_of(script, python, options.limit, notes)
    write(best_of(figures), facts, notes)
    print("written: benchmarks/results.json and benchmarks/RESULTS.md")


if __name__ == "__main__":
    main()
