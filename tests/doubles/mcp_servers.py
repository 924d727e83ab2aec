"""Real servers of capabilities, from the registries: installed once, at these versions, outside the repository.

`npm_server` and `pypi_server` give the command that starts one. The servers stand in a cache folder that all tests of a
machine share (`XDG_CACHE_HOME`, else `~/.cache`); a lock keeps two of them from installing at once. Those from npm need
Node.js and npm (Debian: `apt-get install nodejs npm`). Knows no protocol.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.doubles.postgres import free_port

NPM = {"everything": "2026.8.31", "filesystem": "2026.8.31", "memory": "2026.8.31"}
"""Packages `@modelcontextprotocol/server-NAME` and their versions."""

PYPI = {
    "git": ("mcp-server-git==2026.10.19",),
    "time": ("mcp-server-time==2026.10.19",),
    "sqlite": ("mcp-server-sqlite==2025.4.25", "mcp<2"),
}
"""What is installed for `mcp-server-NAME`, each in an environment of its own."""

_BOUND = 240.0
_START = 30.0
_OLDEST = 18
_READY = ".ready"


class NoServers(Exception):
    """Servers cannot be installed here; says what is missing."""


def cache_folder() -> Path:
    """Where they stand."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinue-tests" / "servers"


def npm_server(name: str, *arguments: str) -> list[str]:
    """The command of a server from npm, installed if need be. NoServers where there is no Node.js or no npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoServers("servers from npm need Node.js and npm: `apt-get install nodejs npm`")
    found = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=_BOUND, check=True).stdout
    if int(found.strip().lstrip("v").partition(".")[0]) < _OLDEST:
        raise NoServers(f"servers from npm need Node.js {_OLDEST} or newer, this is {found.strip()}")
    packages = [f"@modelcontextprotocol/server-{package}@{version}" for package, version in NPM.items()]
    versions = "-".join(sorted(set(NPM.values())))

    def install(folder: Path) -> None:
        (folder / "package.json").write_text("{}")
        _run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], folder)

    folder = _installed(f"npm-{len(NPM)}-{versions}", install)
    return [node, str(folder / "node_modules" / ".bin" / f"mcp-server-{name}"), *arguments]


def pypi_server(name: str, *arguments: str) -> list[str]:
    """The command of a server from PyPI, installed if need be."""
    wanted = PYPI[name]

    def install(folder: Path) -> None:
        place = str(folder / "venv")
        _run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, place], folder)
        _run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", place, *wanted], folder)

    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    folder = _installed(f"{wanted[0].replace('==', '-')}-{version}", install)
    return [str(folder / "venv" / "bin" / f"mcp-server-{name}"), *arguments]


@contextmanager
def everything_over_http() -> Iterator[str]:
    """The address of the server `everything`, which speaks HTTP until the end."""
    port = free_port()
    command = npm_server("everything", "streamableHttp")
    environ = {**os.environ, "PORT": str(port)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_until_it_listens(server, port)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.kill()


def _wait_until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _START
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the server on port {port} ended with {server.poll()} or does not listen")
        time.sleep(0.05)


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """The folder of a finished installation; what a broken one has left is removed first."""
    folder = cache_folder() / name
    if (folder / _READY).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent / f"{name}.lock"):
        if not (folder / _READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / _READY).touch()
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_BOUND)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command[:3])} in {folder} failed:\n{said}")
