"""Retinue: durable, distributed runs of LLM agents as Ray actors.

The public face: what a project imports. Names are looked up when they are first used, so that importing
`retinue` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinue.host.documents import document_tools
    from retinue.ingress.client import Client, RunHandle
    from retinue.ingress.connecting import connect
    from retinue.ingress.sync import SyncClient, connect_sync
    from retinue.runs.artifacts import Artifact
    from retinue.runs.context import Context
    from retinue.runs.contracts import Branch, Budget, Status, StopReason
    from retinue.runs.definitions import agent, workflow
    from retinue.runs.doors import Doors
    from retinue.runs.errors import RetinueError
    from retinue.runs.forking import Given
    from retinue.runs.joins import all_of, best_effort, first_success, quorum
    from retinue.runs.options import Compaction, Reset, prompt
    from retinue.runs.patterns.chain import chain
    from retinue.runs.patterns.handoff import handoff
    from retinue.runs.patterns.orchestrate import orchestrate
    from retinue.runs.patterns.parallel import parallel
    from retinue.runs.patterns.refine import refine
    from retinue.runs.patterns.route import route
    from retinue.runs.patterns.vote import vote
    from retinue.runs.resources import Resources
    from retinue.runs.rules import rule
    from retinue.runs.sandbox_handles import SandboxHandle
    from retinue.runs.sandboxes import ExecResult
    from retinue.sessions.native import tool

_HOMES = {
    "Artifact": "runs.artifacts",
    "Branch": "runs.contracts",
    "Budget": "runs.contracts",
    "Client": "ingress.client",
    "Compaction": "runs.options",
    "Context": "runs.context",
    "ExecResult": "runs.sandboxes",
    "Given": "runs.forking",
    "Doors": "runs.doors",
    "Reset": "runs.options",
    "Resources": "runs.resources",
    "RetinueError": "runs.errors",
    "RunHandle": "ingress.client",
    "Status": "runs.contracts",
    "StopReason": "runs.contracts",
    "SandboxHandle": "runs.sandbox_handles",
    "SyncClient": "ingress.sync",
    "agent": "runs.definitions",
    "all_of": "runs.joins",
    "best_effort": "runs.joins",
    "chain": "runs.patterns.chain",
    "connect": "ingress.connecting",
    "connect_sync": "ingress.sync",
    "document_tools": "host.documents",
    "first_success": "runs.joins",
    "handoff": "runs.patterns.handoff",
    "orchestrate": "runs.patterns.orchestrate",
    "parallel": "runs.patterns.parallel",
    "prompt": "runs.options",
    "quorum": "runs.joins",
    "refine": "runs.patterns.refine",
    "route": "runs.patterns.route",
    "rule": "runs.rules",
    "tool": "sessions.native",
    "vote": "runs.patterns.vote",
    "workflow": "runs.definitions",
}

__all__ = [
    "Artifact",
    "Branch",
    "Budget",
    "Client",
    "Compaction",
    "Context",
    "Doors",
    "ExecResult",
    "Given",
    "Reset",
    "Resources",
    "RetinueError",
    "RunHandle",
    "SandboxHandle",
    "Status",
    "StopReason",
    "SyncClient",
    "agent",
    "all_of",
    "best_effort",
    "chain",
    "connect",
    "connect_sync",
    "document_tools",
    "first_success",
    "handoff",
    "orchestrate",
    "parallel",
    "prompt",
    "quorum",
    "refine",
    "route",
    "rule",
    "tool",
    "vote",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'retinue' has no attribute {name!r}")
    return getattr(import_module(f"retinue.{_HOMES[name]}"), name)
