"""Tools, callers and gateways that the tests of the sessions room share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from retinue.policy.load import load_gate
from retinue.runs.capabilities import Caller, CallResult
from retinue.sessions.catalog import Catalog, Tool
from retinue.sessions.gateway import CapabilityGateway

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


class Passage(BaseModel):
    document: str
    quote: str = ""


def caller(**changes: Any) -> Caller:
    given: dict[str, Any] = {
        "run_id": "r1",
        "root_run_id": "r1",
        "tenant_id": "acme",
        "principal_id": "ana",
        "agent": "clerk",
        "route": "cli",
        "depth": 0,
        "key": "k1",
        "epoch": 1,
        "deadline": NOW + 60 * SECOND,
        "traceparent": "",
        "budget": {"hops": 3},
    }
    return Caller(**{**given, **changes})


def gateway_of(*tools: Tool) -> CapabilityGateway:
    return CapabilityGateway(Catalog(tools), load_gate(None), clock=lambda: NOW)


async def call(tool: Tool, **arguments: Any) -> CallResult:
    gateway = gateway_of(tool)
    return await gateway.execute(gateway.prepare(tool.capability.name, arguments), caller())
