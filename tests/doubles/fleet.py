"""Servers of capabilities of every kind that die at random, for soaks: which died when, and what that explains.

Servers over HTTP are processes of the test; those over stdio belong to whoever hosts the sessions, and are found by
what they were started with. One of each kind is never killed: nothing that happens to the others may be seen there.
Knows neither sessions nor runs.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
from tests.doubles.processes import ROOT, Other

from retinue.sessions.mcp.guardian import VARIABLE

TALKER = str(ROOT / "tests" / "doubles" / "wire_servers" / "talker.py")
AFTERMATH = 30.0
"""Seconds after a death in which its server may still fail: it starts anew, and is not tried at once."""
PATIENT = {"timeout": 60.0, "connect_seconds": 60.0}


@dataclass
class Fleet:
    """The servers as they are declared, and their deaths: spans of the monotonic clock, by the server's name."""

    stdio: dict[str, dict[str, Any]]
    ports: list[int] = field(default_factory=list)
    others: dict[int, Other] = field(default_factory=dict)
    died: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    deaths: int = 0

    def servers(self) -> dict[str, dict[str, Any]]:
        """All declarations by name."""
        over_http = {
            f"http-{number}-{protocol}-{scope}": {"url": url_of(port), "protocol": protocol, "scope": scope, **PATIENT}
            for number, port in enumerate(self.ports)
            for protocol in ("legacy", "auto")
            for scope in ("run", "worker")
        }
        return {**over_http, **self.stdio}

    def explains(self, server: str, began: float, ended: float) -> bool:
        """Whether a failure between these moments is of a server that had just died."""
        return any(away <= ended and began < back + AFTERMATH for away, back in self.died.get(server, ()))

    def close(self) -> None:
        """End the servers over HTTP."""
        for other in self.others.values():
            _end(other)

    def left(self) -> list[int]:
        """The processes of servers over stdio that were seen and are not gone."""
        return [pid for pid in self.pids if psutil.pid_exists(pid) and _status(pid) != psutil.STATUS_ZOMBIE]

    def note_children(self, host: psutil.Process) -> list[psutil.Process]:
        """The processes of servers over stdio that the host has just now."""
        children = [child for child in host.children() if _ship(child) in self.stdio]
        self.pids |= {child.pid for child in children}
        return children


def fleet(processes: int, ports: int = 3) -> Fleet:
    """So many servers over stdio, and so many over HTTP that are started at once; the first of each is never killed."""
    command = [sys.executable, TALKER, "stdio"]
    kinds = {f"stdio-{n}": "legacy" if n % 2 else "auto" for n in range(processes)}
    made = Fleet({name: {"command": [*command, name], "protocol": kind, **PATIENT} for name, kind in kinds.items()})
    for _ in range(ports):
        other = Other([TALKER, "http", "0"])
        made.ports.append(int(other.wait_for("ready").split()[1]))
        made.others[made.ports[-1]] = other
    return made


async def kill_at_random(ships: Fleet, host: psutil.Process, every: float, until: float) -> None:
    """Now and then one server dies without a word; each fifth time one over HTTP."""
    number = 0
    while time.monotonic() < until:
        await asyncio.sleep(every)
        number += 1
        mortal = [child for child in ships.note_children(host) if _ship(child) not in ("stdio-0", "")]
        if number % 5 == 0:
            await _restart(ships, random.choice(ships.ports[1:]))
        elif mortal:
            child = random.choice(mortal)
            name, now = _ship(child), time.monotonic()
            with suppress(psutil.NoSuchProcess):
                child.kill()
            ships.died.setdefault(name, []).append((now, now))
        ships.deaths += 1


def marked(host: int) -> list[psutil.Process]:
    """The living processes that carry the mark of this host: its servers and all that they have begun."""
    return [each for each in psutil.process_iter() if f":{host}:" in _environment(each).get(VARIABLE, "")]


def url_of(port: int) -> str:
    """The address of a server over HTTP."""
    return f"http://127.0.0.1:{port}/mcp"


async def _restart(ships: Fleet, port: int) -> None:
    names = [name for name, given in ships.servers().items() if given.get("url") == url_of(port)]
    now = time.monotonic()
    for name in names:
        ships.died.setdefault(name, []).append((now, math.inf))
    _end(ships.others[port])
    ships.others[port] = await asyncio.to_thread(_again, port)
    for name in names:
        ships.died[name][-1] = (now, time.monotonic())


def _end(other: Other) -> None:
    other.kill()
    for pipe in (other.process.stdin, other.process.stdout):
        assert pipe is not None
        pipe.close()


def _again(port: int) -> Other:
    other = Other([TALKER, "http", str(port)])
    other.wait_for("ready")
    return other


def _ship(process: psutil.Process) -> str:
    """Which server over stdio a process is; empty for any other."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return words[-1] if "stdio" in words else ""


def _status(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
