"""A model without a price does not run under a money limit in silence: the shipped rules deny it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.policy.asking import ask

from retinue.policy.gate import CedarGate
from retinue.policy.load import load_gate

pytestmark = pytest.mark.promise("A5", "F2")

TEMPLATE = Path(__file__).parents[3] / "ingress" / "templates" / "policy"


@pytest.fixture(params=["shipped", "template"])
def gate(request: pytest.FixtureRequest, tmp_path: Path) -> CedarGate:
    return load_gate(None if request.param == "shipped" else TEMPLATE)


@pytest.mark.parametrize(
    ("limited", "priced", "outcome"),
    [(True, False, "deny"), (True, True, "allow"), (False, False, "allow"), (False, True, "allow")],
)
def test_only_a_limited_run_needs_a_price(gate: CedarGate, limited: bool, priced: bool, outcome: str) -> None:
    said = gate.decide(ask(stage="model", resource="openai:new", facts={"limited": limited, "priced": priced}))
    assert said.outcome == outcome, said
    if outcome == "deny":
        assert [hit.rule for hit in said.rules] == ["default.unpriced"] and "models.prices" in said.reason
