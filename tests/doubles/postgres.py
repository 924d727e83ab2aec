"""A PostgreSQL server of a test's or a measurement's own: temporary, on a free port of 127.0.0.1, with fsync.

Needs the system's server package only (Debian: `apt-get install postgresql`) and leaves the system's cluster alone.
PostgreSQL refuses root, so root runs it as the user `postgres`, or `nobody`. Knows no engine and no store.
"""

from __future__ import annotations

import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg

USER = "retinue"
_BOUND = 60.0  # seconds for any one command, start or stop
_PORTS = range(20_000, 32_000)  # below what systems give to outgoing connections: a stopped server finds its port again
_GUARD = 'read -r _; kill -CONT "$1"; kill -QUIT "$1"; rm -rf "$2"'
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}


class NoServer(Exception):
    """PostgreSQL cannot be started here; says why."""


class PostgresServer:
    """`with PostgresServer() as server`: started at the beginning, stopped and gone at the end. Raises NoServer.

    Should this process die without an end, a guard beside it stops the server and removes its files.
    """

    def __init__(self) -> None:
        self._programs = programs_folder()
        self._as_user = _unprivileged()
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._port = free_port()
        self._names = (f"fresh{number}" for number in itertools.count(1))
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        if self._as_user:
            shutil.chown(self._folder, self._as_user["user"])
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        with self._admin() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self._url(name)

    def drop(self, url: str) -> None:
        """Remove a database of `fresh`, whoever is connected to it."""
        with self._admin() as connection:
            connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def start(self) -> None:
        """Start the server, which recovers if it was stopped hard; returns when it takes connections."""
        settings = {"port": str(self._port)} | _SETTINGS
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._as_user,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self._process.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._wait_until_ready(self._process)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: `fast` breaks connections off and ends in order, `immediate` is as a crash."""
        if self._process is None:
            return
        self.resume()
        if self._process.poll() is None:
            self._process.send_signal(_SIGNALS[mode])
        self._process.wait(_BOUND)
        self._process = None
        self._dismiss_guard()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start again, on the same port and data."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Freeze the server and all its processes: connections stay open and nobody answers."""
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on; nothing where it is not frozen."""
        self._send_all(signal.SIGCONT)

    @property
    def folder(self) -> Path:
        """All its files: data, write-ahead log, and what it has logged."""
        return self._folder

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{database}"

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=10)

    def _initialise(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "-N"]
        done = subprocess.run(
            [*command, "--locale=C"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_BOUND,
            **self._as_user,
        )
        if done.returncode:
            raise NoServer(f"initdb ended with {done.returncode}: {done.stdout.decode(errors='replace')}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _BOUND
        while True:
            try:
                self._admin().close()
            except psycopg.OperationalError as error:
                if process.poll() is None and time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                log = (self._folder / "log").read_text(errors="replace")
                raise NoServer(f"PostgreSQL did not start on port {self._port}: {log[-2000:]}") from error
            return

    def _send_all(self, number: signal.Signals) -> None:
        """To the server's first process, then to those it has: once frozen, it starts no others."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None


def programs_folder() -> Path:
    """Where the newest server's programs are: Debian keeps them off the PATH. Raises NoServer."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    if program := shutil.which("postgres"):
        return Path(program).resolve().parent
    raise NoServer("no PostgreSQL server is installed: on Debian and Ubuntu, apt-get install postgresql")


def free_port() -> int:
    """A port that nobody listens on at the moment. Raises NoServer."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise NoServer(f"no free port was found between {_PORTS.start} and {_PORTS.stop}")


def _unprivileged() -> dict[str, Any]:
    """What makes a subprocess run as somebody whom PostgreSQL takes: nothing unless this is root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return {"user": name, "group": names[name].pw_gid, "extra_groups": []}
    raise NoServer("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as")
