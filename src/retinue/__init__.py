"""Retinue: durable, distributed runs of LLM agents as Ray actors.

The public face: what a project imports. Names are looked up when they are first used, so that importing
`retinue` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinue.host.documents import document_tools
    from retinue.ingress.client import Client, RunHandle, connect
    from retinue.ingress.sync import SyncClient, connect_sync
    from retinue.runs.context import Context
    from retinue.runs.contracts import Branch, Budget, Status, StopReason
    from retinue.runs.definitions import agent, prompt, workflow
    from retinue.runs.doors import Doors
    from retinue.runs.errors import RetinueError
    from retinue.runs.joins import all_of, best_effort, first_success, quorum
    from retinue.sessions.native import tool

_HOMES = {
    "Branch": "runs.contracts",
    "Budget": "runs.contracts",
    "Client": "ingress.client",
    "Context": "runs.context",
    "Doors": "runs.doors",
    "RetinueError": "runs.errors",
    "RunHandle": "ingress.client",
    "Status": "runs.contracts",
    "StopReason": "runs.contracts",
    "SyncClient": "ingress.sync",
    "agent": "runs.definitions",
    "all_of": "runs.joins",
    "best_effort": "runs.joins",
    "connect": "ingress.client",
    "connect_sync": "ingress.sync",
    "document_tools": "host.documents",
    "first_success": "runs.joins",
    "prompt": "runs.definitions",
    "quorum": "runs.joins",
    "tool": "sessions.native",
    "workflow": "runs.definitions",
}

__all__ = [
    "Branch",
    "Budget",
    "Client",
    "Context",
    "Doors",
    "RetinueError",
    "RunHandle",
    "Status",
    "StopReason",
    "SyncClient",
    "agent",
    "all_of",
    "best_effort",
    "connect",
    "connect_sync",
    "document_tools",
    "first_success",
    "prompt",
    "quorum",
    "tool",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'retinue' has no attribute {name!r}")
    return getattr(import_module(f"retinue.{_HOMES[name]}"), name)
