"""The readiness record: for each area who owns it, what is missing for production, and what is decided.

A record for people who decide about a deployment; it says what the code of this version does, no more. Pure.
"""

from __future__ import annotations

from typing import Literal

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
    return [
        Area(
            name="state",
            owner="store/",
            state=f"SQLite in {settings.data_folder}, every acknowledged step synced to disk",
            gap="one machine: actors on other nodes need a server as the store, which this version does not have",
            decision="fit on one machine",
        ),
        Area(
            name="capabilities",
            owner="sessions/",
            state="native tools behind one gateway, each with side effect, idempotency, timeout and size cap",
            gap="remote tool servers (MCP) and circuit breakers are not there",
            decision="fit",
        ),
        Area(
            name="policy",
            owner="policy/ and whoever reviews the rules",
            state=f"Cedar rules from {settings.policy_folder or 'the shipped defaults (no writes)'}",
            gap="rules are read when a runtime starts; changed ones need a restart",
            decision="fit" if settings.policy_folder else "your part",
        ),
        Area(
            name="context",
            owner="memory/",
            state=f"packets of at most {settings.context_tokens:,} tokens, with what was left out and why",
            gap="no memory across runs",
            decision="fit",
        ),
        Area(
            name="traces",
            owner="traces/",
            state="DuckDB tables derived from the journal" + (f", spans to {settings.otlp}" if settings.otlp else ""),
            gap="no retention by age: the file grows with the journal",
            decision="fit on one machine",
        ),
        Area(
            name="sandbox",
            owner="nobody yet",
            state="tools run in the worker's process with its rights",
            gap="code that a model wrote must not be run",
            decision="not yet",
        ),
        Area(
            name="auth",
            owner="the operating system",
            state=f"whoever can read {settings.data_folder} acts as any tenant; its keys are the owner's alone",
            gap="no accounts and no keys: share a machine only with people you trust",
            decision="your part",
        ),
        Area(
            name="backups",
            owner="whoever runs the machine",
            state="none are made",
            gap="copy the data folder while no process uses it; the traces are rebuilt from the store",
            decision="your part",
        ),
    ]
