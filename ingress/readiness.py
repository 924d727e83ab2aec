"""The readiness record: for each area who owns it, what is missing for production, and what is decided.

A record for people who decide about a deployment; it says what the code of this version does, no more. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from retinue.host.opening import identity_of
from retinue.host.settings import Settings
from retinue.runs.contracts import Frozen

Decision = Literal["fit", "fit on one machine", "your part", "not yet"]


class Area(Frozen):
    """`owner` is the room of the code, or who operates it; `state` is how this project has it."""

    name: str
    owner: str
    state: str
    gap: str
    decision: Decision


def areas_of(settings: Settings) -> list[Area]:
    """The record for a project, in a fixed order."""
    known = _AREAS if settings.store is None else _AREAS | _SHARED_AREAS
    return [Area(name=name, state=_STATES[name](settings), **facts) for name, facts in known.items()]


_STATES: dict[str, Callable[[Settings], str]] = {
    "state": lambda settings: (
        f"SQLite in {settings.data_folder}, every acknowledged step synced to disk"
        if settings.store is None
        else f"PostgreSQL at {identity_of(settings)}, every acknowledged step committed there"
    ),
    "capabilities": lambda _: (
        "native tools and tools of servers (MCP) behind one gateway, with side effect, idempotency, timeout and cap"
    ),
    "policy": lambda settings: f"Cedar rules from {settings.policy_folder or 'the shipped defaults: no writes'}",
    "context": lambda settings: f"packets of at most {settings.context_tokens:,} tokens, omissions with reasons",
    "traces": lambda settings: (
        "DuckDB tables derived from the journal"
        + (f", spans exported to {settings.otlp}" if settings.otlp else ", spans not exported")
    ),
    "sandbox": lambda settings: (
        f"agents with a sandbox run code shut in (backend {settings.sandbox.backend}); tools of the project run in the "
        f"worker's process, with its rights"
    ),
    "auth": lambda settings: (
        f"whoever can read {settings.data_folder} acts as any tenant; keys are 0600"
        if settings.store is None
        else "whoever can connect to the store's database acts as any tenant; its keys are "
        + ("wrapped with `store_key`" if settings.store_key else "not wrapped: name a `store_key`")
    ),
    "backups": lambda settings: (
        "`retinue backup` makes one while runs go on, snapshots of workspaces "
        + ("included" if settings.sandbox.snapshots is None else f"not: they stay in {settings.sandbox.snapshots}")
        + "; nothing makes them by itself"
    ),
}

_AREAS: dict[str, dict[str, Any]] = {
    "state": {
        "owner": "store/",
        "gap": "one machine: actors on other nodes need PostgreSQL as the store (`store:`, `retinue store copy`)",
        "decision": "fit on one machine",
    },
    "capabilities": {
        "owner": "sessions/",
        "gap": "what a server does with a call is not seen: its tools count as writes until declared otherwise",
        "decision": "fit",
    },
    "policy": {
        "owner": "policy/, and whoever reviews the rules",
        "gap": "rules are not signed: whoever may write the folder decides what is permitted",
        "decision": "fit",
    },
    "context": {
        "owner": "memory/",
        "gap": "memory across runs is found by the words it shares with a question, not by meaning",
        "decision": "fit",
    },
    "traces": {
        "owner": "traces/",
        "gap": "no retention by age: the file grows with the journal",
        "decision": "fit on one machine",
    },
    "sandbox": {
        "owner": "sandbox/",
        "gap": "Linux only, as the checks above say; the kernel is shared: attackers belong into a virtual machine",
        "decision": "fit",
    },
    "auth": {
        "owner": "the operating system",
        "gap": "no accounts and no keys: share a machine only with people you trust",
        "decision": "your part",
    },
    "backups": {
        "owner": "whoever runs the machine",
        "gap": "make them on a schedule, keep them elsewhere and try `retinue restore`; none is made on its own",
        "decision": "your part",
    },
}

_SHARED_AREAS: dict[str, dict[str, Any]] = {
    "state": {
        "owner": "store/, and whoever runs the server",
        "gap": "the server is one: its own standby, disk and upgrades are its operator's",
        "decision": "your part",
    },
    "auth": {
        "owner": "whoever runs the server",
        "gap": "no accounts and no keys of Retinue's own: who may connect is the server's to say, TLS is the URL's",
        "decision": "your part",
    },
}
"""What is otherwise where the store is a server."""
