"""All remote tools of a project: made of the declarations and the lock, found by the names that agents give.

Knows no connection in use; what is not pinned is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from retinue.runs.errors import ConfigError
from retinue.sessions.connections import Connections
from retinue.sessions.pins import Lock, PinnedServer
from retinue.sessions.remote import RemoteTool
from retinue.sessions.servers import Server

ALL = "*"
"""`github__*` stands for every pinned tool of the server `github`."""


class RemoteTools:
    """The remote tools of a project. ConfigError when an override is for a tool that is not pinned."""

    def __init__(self, servers: Mapping[str, Server], lock: Lock, connections: Connections) -> None:
        self.tools: dict[str, RemoteTool] = {}
        self._servers = servers
        for name, server in servers.items():
            pins = lock.servers.get(name)
            if pins is None:
                continue
            _check_overrides(server, pins)
            for tool in sorted(pins.tools):
                made = RemoteTool(server, tool, pins, connections)
                self.tools[made.capability.name] = made

    def named(self, agent: str, name: str) -> tuple[RemoteTool, ...]:
        """What a name in an agent's list stands for; nothing when it is not of a declared server.

        ConfigError for a server without pins, or a tool that is not among them.
        """
        server, mark, tool = name.partition("__")
        if not mark or server not in self._servers:
            return ()
        found = tuple(one for one in self.tools.values() if one.capability.source == f"mcp:{server}")
        wanted = found if tool == ALL else tuple(one for one in found if one.capability.name == name)
        if wanted:
            return wanted
        if not found:
            problem = f"the server {server!r} is declared and nothing of it is pinned"
        else:
            near = get_close_matches(name, self.tools, n=3)
            hint = f" (did you mean {', '.join(near)}?)" if near else ""
            problem = f"the server {server!r} has no such tool among its pins{hint}"
        raise ConfigError(f"agent {agent!r} names {name!r}: {problem}; run `retinue capabilities pin {server}`")


def _check_overrides(server: Server, pins: PinnedServer) -> None:
    where = f"retinue.yaml: capabilities.{server.name}.tools"
    for name, override in server.tools.items():
        wanted = [name] if override.probe is None else [name, override.probe.tool]
        for tool in wanted:
            if tool in pins.tools:
                continue
            if tool in pins.left_out:
                raise ConfigError(f"{where}.{name}: {tool!r} is not pinned: {pins.left_out[tool]}")
            near = get_close_matches(tool, pins.tools, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(pins.tools)[:20])};"
            raise ConfigError(
                f"{where}.{name}: {tool!r} is not among the pins: {hint} if the server has it now, run "
                f"`retinue capabilities pin {server.name}`"
            )
