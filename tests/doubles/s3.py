"""An S3 server on the loopback: moto's, in a process of its own, offline, in memory.

`bucket` is a fresh bucket with the environment that reaches it; `S3Server` may be stopped to see what its absence
does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

_UP = 60.0
_NUMBERS = count()
_SERVE = """
import os, sys, threading
from moto.server import main

def follow():
    sys.stdin.buffer.read()
    os._exit(0)

threading.Thread(target=follow, daemon=True).start()
main(sys.argv[1:])
"""
"""The server, until whoever started it is gone and its standard input ends with them."""


@dataclass
class S3Server:
    """A server that answers at `url` until it is stopped."""

    url: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it on a free port and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-B", "-c", _SERVE, "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(
            command,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + _UP
        while not _listens(port):
            assert self.process.poll() is None, f"moto's server ended with code {self.process.returncode}"
            assert time.monotonic() < until, f"moto's server did not listen within {_UP:g} s"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; what it holds is gone."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.kill()
            self.process.wait()

    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-that-must-not-show",
        }

    def make_bucket(self) -> str:
        """A new bucket's name."""
        name = f"bucket-{next(_NUMBERS)}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=10):
            return name


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the session."""
    server = S3Server()
    server.start()
    yield server
    server.stop()


def reach(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process reach the server, and nothing else of that kind."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a fresh bucket, `s3://name`; this process's environment reaches it."""
    reach(s3_server, monkeypatch)
    return f"s3://{s3_server.make_bucket()}"


@pytest.fixture(params=["folder", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Where blobs may be kept: None for the store's own folder, else a URL."""
    if request.param == "folder":
        return None
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/some/prefix"
