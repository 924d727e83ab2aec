"""A PostgreSQL server of its own for one measurement: in a temporary folder, on a free port, with default durability.

Needs Debian's packages only (`apt-get install postgresql`). Root may not run a server, so then it runs as the user
`postgres` of those packages. Knows no engine.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoServer(Exception):
    """PostgreSQL cannot be started here; says why."""


@contextmanager
def server() -> Iterator[str]:
    """The address of a fresh database; the server stops and its files go afterwards. Raises NoServer."""
    programs = programs_folder()
    prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:
        if prefix:
            shutil.chown(folder, "postgres")
        data, port = Path(folder) / "data", free_port()
        run([*prefix, str(programs / "initdb"), "-D", str(data), "-U", "peer", "-A", "trust", "-E", "UTF8"])
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c max_connections=120"
        control = [*prefix, str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
        run([*control, "-o", settings, "-l", str(Path(folder) / "log"), "start"])
        try:
            run([*prefix, str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "peer", "peer"])
            yield f"postgresql://peer@127.0.0.1:{port}/peer"
        finally:
            run([*control, "-m", "fast", "stop"])


def programs_folder() -> Path:
    """Where the newest server's programs are: Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    if program := shutil.which("initdb"):
        return Path(program).parent
    raise NoServer("no PostgreSQL server is installed: on Debian and Ubuntu, apt-get install postgresql")


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str]) -> None:
    """Run to the end, at most two minutes; raises NoServer with what the command said."""
    done = subprocess.run(
        command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
    )
    if done.returncode:
        raise NoServer(f"{' '.join(command)} ended with {done.returncode}: {done.stdout.decode(errors='replace')}")
