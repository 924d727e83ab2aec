"""No way around the gate: every door to a model, a capability, a memory or the network is listed here with who may use
it, and each list fails when somebody else does. What is planted at the end shows that.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.unit.house.doors import Trees, imports, module_of, reached_into, unguarded, uses

pytestmark = [pytest.mark.promise("F1")]

DOORS: dict[str, set[str]] = {
    # A model answers: in a step, which asks the gate first. The catalog hands on; the endpoint of an adopted function
    # asks its keeper, which makes such a step of it.
    "complete": {
        "runs.effects.models:_complete",
        "inference.catalog:Models.complete",
        "host.model_endpoint:ModelEndpoint._complete",
    },
    # A capability is called: in a step, or for a trial of a tool that only reads.
    "execute": {
        "runs.effects.calls:_execute",
        "runs.effects.remote:execute",
        "runs.effects.sandboxed:_through",
        "ingress.pinning:call_once",
    },
    # A call is prepared: where it is weighed at the stage of its rollout. The others only see whether arguments fit; a
    # trial of a tool asks the gate itself.
    "prepare": {
        "host.sandboxes:TenantCiphers.of",
        "runs.effects.weighing:as_made",
        "runs.effects.weighing:prepare",
        "runs.effects.weighing:weigh",
        "runs.effects.weighing:weigh_again",
        "runs.effects.calls:_again",
        "runs.effects.calls:_is_another",
        "runs.effects.calls:_perform",
        "runs.turns:AgentContext.accepted",
        "ingress.client:Client.approve",
        "ingress.pinning:call_once",
    },
    # A write in doubt is asked about. The others only read what a declaration says of a tool's probe.
    "probe": {
        "ingress.sandbox_checks:try_sandboxes",
        "sandbox.backends.choosing:choose",
        "runs.effects.calls:_probe",
        "runs.breakers:BreakerPolicy.probe_ns",
        "sessions.remote:RemoteTool.invoke_probe",
        "sessions.remote:_check_names",
        "sessions.remotes:_check_overrides",
        "sessions.servers:Server._probes_read",
        "sessions.servers:ToolOverride._contract",
    },
    # A tool runs: in the gateway. A native tool has another one as its probe; the last is a command of the terminal.
    "invoke": {
        "sessions.gateway:CapabilityGateway.execute",
        "sessions.native:NativeTool.invoke_probe",
        "ingress.verbs.alerts:_list_unless_told",
    },
    "invoke_probe": {"sessions.gateway:CapabilityGateway.probe"},
    # The sandboxes of this process: in a run's own record of them; the host lets go of them.
    "sandboxes": {
        "ingress.sandbox_checks:_agents_with_sandboxes",
        "runs.live_sandboxes:LiveSandboxes._port",
        "runs.live_sandboxes:LiveSandboxes.learn",
        "runs.history:History._restart",
        "host.composition:load_project",
        "host.composition:make_host",
        "host.hosting:Host._carry",
        "host.hosting:Host.serve",
    },
    # A live sandbox: in the operations that the gateway calls, which are given it by the step.
    "box": {"sessions.sandbox_operations:box_of", "runs.effects.sandboxed:_change"},
    # A key is destroyed: in the erasure of a tenant, which is refused while runs go on, and is on record.
    "destroy": {"host.erasing:erase_tenant"},
    # The memories of agents: in the steps that ask the gate's stage `memory`; a person may list and forget.
    "memories": {
        "runs.effects.memory:_port",
        "host.composition:services_of",
        "ingress.memories:_find",
        "ingress.memories:forget",
        "ingress.memories:remembered",
    },
}
"""Attribute to the places that may read it off anything."""

PORTS: dict[str, set[str]] = {
    "gateway": {
        "host.composition:services_of",
        "host.hosting:Host._carry",
        "host.hosting:Host._end_sessions",
        "host.hosting:Host.serve",
        "ingress.client:Client._check_model",
        "ingress.client:Client.approve",
        "ingress.pinning:call_once",
        "ingress.verbs.capabilities:show_command",
        "runs.effects.adopted:Adoption.call",
        "runs.effects.calls:_execute",
        "runs.effects.calls:_probe",
        "runs.effects.remote:execute",
        "runs.effects.rolling:ended",
        "runs.effects.weighing:_decide",
        "runs.effects.weighing:as_made",
        "runs.effects.weighing:prepare",
        "runs.effects.weighing:weigh",
        "runs.live_sessions:Sessions.hear",
        "runs.effects.weighing:weigh_again",
        "runs.effects.sandboxed:_through",
        "runs.turns:AgentContext.accepted",
        "runs.turns:AgentContext.disclosed",
    },
    "models": {
        "host.composition:load_project",
        "host.composition:services_of",
        "host.hosting:Host.serve",
        "ingress.checks:_model",
        "ingress.client:Client._check_model",
        "runs.effects.adopted:Adoption.complete",
        "runs.effects.models:_complete",
        "runs.effects.models:perform",
    },
}
"""Who has the gateway or the models in hand: most only ask them for a specification."""

GUARDED: list[tuple[str, str, set[str]]] = [
    ("runs/effects/calls.py", "_execute", {"weighing.weigh", "_still_allowed"}),
    ("runs/effects/calls.py", "_probe", {"doubts.way"}),
    ("runs/effects/models.py", "_complete", {"gates.decide"}),
    ("runs/effects/memory.py", "*.remember", {"_permitted"}),
    ("runs/effects/memory.py", "*.forget", {"_permitted"}),
    ("runs/effects/memory.py", "*.recall", {"gates.decide"}),
    ("ingress/pinning.py", "gateway.execute", {"gateway.decide"}),
]
"""In this module, whoever calls this asks one of these first."""

NETWORK: dict[str, set[str]] = {
    # Behind the models, and to tell of alerts where the configuration says.
    "httpx": {"inference.http"},
    # Behind the gateway: the wire of capability sessions.
    "httpx2": {"sessions.mcp.connection", "sessions.mcp.containment"},
    "ssl": {"sessions.mcp.connection"},
    # State: the store, blobs, trace tables and their export.
    "psycopg": {"store.postgres"},
    "psycopg_pool": {"store.postgres"},
    "obstore": {"store.s3"},
    "opentelemetry": {"traces.export", "traces.otel", "ingress.checks"},
    # Processes of the runtime itself, their names and ports; servers of capabilities; a backup.
    "ray": {"actors"},
    "subprocess": {
        "actors.runtime",
        "sandbox.backends.bubblewrap",
        "sandbox.backends.launching",
        "sandbox.mounts",
        "sandbox.backends.selftest",
        "sessions.mcp.children",
        "store.backup",
    },
    "socket": {
        "actors.hosts",
        "actors.placement",
        "actors.runtime",
        "actors.supervisor",
        "host.composition",
        "host.model_endpoint",
        "host.sandboxes",
        "ingress.mcp.http",
        "sandbox.egress.forwarding",
        "sandbox.backends.keeper",
        "sandbox.backends.launching",
        "sandbox.egress.proxy",
        "sandbox.backends.running",
        "sandbox.backends.selftest",
        "sandbox.backends.trial",
        "sessions.mcp.containment",
    },
    # Servers: what they are asked becomes a run or a step.
    "uvicorn": {"host.model_endpoint", "ingress.mcp.http"},
    "starlette": {"host.model_endpoint", "ingress.mcp.http"},
    "mcp": {"sessions.mcp", "ingress.mcp"},
    # Nobody.
    **{name: set() for name in ("aiohttp", "http.client", "urllib.request", "urllib3", "requests", "websockets")},
    **{name: set() for name in ("smtplib", "ftplib", "telnetlib", "xmlrpc", "paramiko", "grpc", "boto3", "botocore")},
}
"""Libraries that reach out of the machine or begin processes, and the modules or folders that may import them."""

CLIENTS = {
    "retinue.inference.http": {"inference", "host.telling"},
    "retinue.sessions.mcp": {"sessions", "host.remotes"},
}
"""Our own clients, and who may import them."""

ESCAPES: dict[str, set[str]] = {
    # An alert is told; git writes out the commit that a reviewed manifest names.
    "create_subprocess_exec": {"host.telling:_run", "sandbox.manifests.checkouts:_finish"},
    "create_connection": {
        "actors.runtime:_await_head",
        "actors.runtime:_refuse_silence",
        "sandbox.backends.trial:_connect_loopback",
    },
    "system": {"ingress.checks:_python"},
    "open_connection": {"sandbox.egress.proxy:Proxy._reach"},
    **{name: set() for name in ("open_unix_connection", "create_subprocess_shell", "popen")},
    **{name: set() for name in ("urlopen", "posix_spawn", "spawnv", "execv", "execve", "start_server")},
}
"""Functions of the standard library that do so without an import that tells, and who may use them."""


def strangers(trees: Trees, listed: dict[str, set[str]]) -> dict[str, set[str]]:
    """Places that read a listed attribute and are not listed for it."""
    found = {name: uses(trees, name) - known for name, known in listed.items()}
    return {name: places for name, places in found.items() if places}


def smugglers(trees: Trees, listed: dict[str, set[str]]) -> dict[str, set[str]]:
    """Modules that import a listed library and are in none of the modules or rooms listed for it."""
    found = imports(trees, frozenset(listed))
    bad = {
        library: {user for user in users if not any(f"{user}.".startswith(f"{home}.") for home in listed[library])}
        for library, users in found.items()
    }
    return {library: users for library, users in bad.items() if users}


def ways_around(trees: Trees) -> list[object]:
    """Everything that goes through a door without being listed, or without having asked."""
    problems: list[object] = [strangers(trees, DOORS), strangers(trees, PORTS), strangers(trees, ESCAPES)]
    problems += [smugglers(trees, NETWORK), smugglers(trees, CLIENTS), reached_into(trees, "runs.effects")]
    for path, door, guards in GUARDED:
        problems.append([f"{path}: {name}" for name in unguarded(trees[Path(path)], door, frozenset(guards))])
    return [problem for problem in problems if problem]


def test_every_door_is_used_by_those_who_are_listed_and_who_ask_first(product: dict[Path, ast.Module]) -> None:
    assert ways_around(product) == []


@pytest.mark.parametrize("listed", [DOORS, PORTS, ESCAPES])
def test_nobody_is_listed_who_does_not_go_through_the_door(
    product: dict[Path, ast.Module], listed: dict[str, set[str]]
) -> None:
    assert {name: known - uses(product, name) for name, known in listed.items() if known - uses(product, name)} == {}


def test_every_guarded_door_is_there(product: dict[Path, ast.Module]) -> None:
    for path, door, _ in GUARDED:
        assert unguarded(product[Path(path)], door, frozenset()) != [], f"nobody calls {door} in {path}"


PLANTED = {
    "a call past the gate": "async def f(run, call, him):\n    return await run.services.gateway.execute(call, him)",
    "a call past its rollout": "def f(gateway, name, given):\n    return gateway.prepare(name, given)",
    "a door kept for later": "def f(services):\n    door = services.gateway\n    return door",
    "a door by another name": "def f(any_name, call, caller):\n    return any_name.execute(call, caller)",
    "a door by its name as text": "def f(port):\n    return getattr(port, 'execute')",
    "a tool run by hand": "def f(tool, arguments, caller):\n    return tool.invoke(arguments, caller, None)",
    "a probe by hand": "def f(tool, arguments, caller):\n    return tool.invoke_probe(arguments, caller)",
    "a model past the gate": "async def f(client, request):\n    return await client.complete(request, None)",
    "a key destroyed by hand": "def f(vault, tenant):\n    return vault.destroy(tenant)",
    "models in hand": "def f(services):\n    return services.models",
    "sandboxes in hand": "def f(services):\n    return services.sandboxes",
    "a sandbox by hand": "async def f(link, order):\n    return await link.box.exec(order)",
    "a memory written": "async def f(services, memory):\n    await services.memories.remember('acme', memory)",
    "a step's inside": "from retinue.runs.effects import calls\n\ndef f(r, c, p):\n    return calls._execute(r, c, p)",
    "a step's inside by import": "from retinue.runs.effects.calls import _execute",
    "a client of its own": "import httpx",
    "a client inside a function": "def f():\n    import http.client",
    "a client by name": "import importlib\n\ndef f():\n    return importlib.import_module('requests')",
    "our client": "from retinue.inference.http import Http",
    "our wire": "from retinue.sessions.mcp import pool",
    "a socket": "import asyncio\n\nasync def f():\n    await asyncio.open_connection('example.org', 80)",
    "a process": "import os\n\ndef f():\n    os.popen('curl example.org')",
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_new_way_around_is_found(product: dict[Path, ast.Module], what: str) -> None:
    planted = {**product, Path("runs/planted.py"): ast.parse(PLANTED[what])}
    assert len(ways_around(planted)) >= 1
    assert "runs.planted" in str(ways_around(planted))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "runs/effects/calls.py",
            "async def perform2(run, c, p):\n    return await _execute(run, c, p)",
        ),
        (
            "runs/effects/calls.py",
            "async def late(run, c, p):\n    await _execute(run, c, p)\n    await weighing.weigh(run, c, p)",
        ),
        ("runs/effects/models.py", "async def perform2(run, c, q, p):\n    return await _complete(run, c, q, p)"),
        ("runs/effects/memory.py", "async def keep(memories, m):\n    await memories.remember('acme', m)"),
    ],
)
def test_a_door_that_is_opened_before_the_gate_was_asked_is_found(
    product: dict[Path, ast.Module], path: str, text: str
) -> None:
    tree = ast.parse(text)
    planted = ast.Module(body=[*product[Path(path)].body, *tree.body], type_ignores=[])
    found = str(ways_around({**product, Path(path): planted}))
    assert path in found and any(f"{path}: {name}" in found for name in ("perform2", "late", "keep"))


def test_every_planted_module_stands_in_a_room_that_is_looked_at(rooms: list[str]) -> None:
    assert "runs" in rooms and module_of(Path("runs/planted.py")) == "runs.planted"
