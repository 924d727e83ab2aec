"""No way around the gate: every door to a model, a capability, a memory or the network is listed here with who may use
it, and each list fails when somebody else does. What is planted at the end shows that.
"""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.promise("F1")]

DOORS: dict[str, set[str]] = {
    # A model answers: from a step, which asks the gate first; the catalog hands on; an adopted function's endpoint asks
    # its keeper, which makes a step of it.
    "complete": {
        "runs.effects.models:_complete",
        "inference.catalog:Models.complete",
        "host.model_endpoint:_Served.complete",
    },
    # A capability is called: by a step, or for a trial of a reading tool; both have a decision of the gate in hand.
    "execute": {"runs.effects.calls:_execute", "runs.effects.remote:execute", "ingress.pinning:call_once"},
    # A write in doubt is asked about: by a step that has asked the gate who is to resolve it.
    "probe": set(),
    # A tool runs: inside the gateway only.
    "invoke": {"sessions.gateway:CapabilityGateway.execute"},
    "invoke_probe": {"sessions.gateway:CapabilityGateway.probe"},
}
"""Attribute to the places that may read it off anything."""
