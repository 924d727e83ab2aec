"""Properties of the gate: it fails closed, and sharing decisions or hiding fields never changes an answer."""

from __future__ import annotations

import math
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy.asking import DEFAULTS, PERMIT_ALL, WRITE, ask, gate_of

from retinue.policy.gate import CedarGate
from retinue.policy.load import load_gate
from retinue.policy.rules import SCHEMA
from retinue.runs.gate import GateDecision, GateRequest

LIMIT = """
@id("limit") forbid (principal, action == Action::"capability", resource == Capability::"refund")
unless { context.arguments.numbers.hasTag("amount") && context.arguments.numbers.getTag("amount") <= 100 };
@id("blocked") forbid (principal, action, resource)
when { context.arguments.numbers.hasTag("amount") && context.arguments.numbers.getTag("amount") > 100 };
"""
VARIED = """
@id("a") permit (principal, action in [Action::"capability", Action::"model"], resource);
@id("b") forbid (principal == Principal::"eve", action, resource);
@id("c") @outcome("approval") forbid (principal, action, resource == Capability::"refund")
when { context.tenant == "umbrella" || (context.budget has micros && context.budget.micros < 10) };
@id("d") forbid (principal, action, resource)
when { context.arguments.texts.hasTag("to") && context.arguments.texts.getTag("to") like "*@evil.example" };
@id("e") forbid (principal, action, resource == Capability::"refund")
when { context.arguments.numbers.hasTag("amount") && context.arguments.numbers.getTag("amount") > 3 };
@id("f") permit (principal, action == Action::"output", resource) when { context.depth == 0 };
@id("g") forbid (principal, action, resource)
when { context.arguments.flags.hasTag("urgent") && context.arguments.flags.getTag("urgent") };
"""
SEES_ALL = '@id("z") forbid (principal, action, resource) when { [context].contains(context) && false };'

LEAN, WHOLE, OPEN = gate_of(VARIED), gate_of(VARIED, SEES_ALL), gate_of(PERMIT_ALL, SEES_ALL)
LIMITED, SHIPPED = gate_of(PERMIT_ALL, LIMIT), load_gate(None)

words = st.text("a5 /.:@[]\\\0\n\ud800é", max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
requests = st.builds(
    lambda changes: ask(**changes),
    st.fixed_dictionaries(
        {},
        optional={
            "stage": st.sampled_from(["capability", "model", "output", "request"]),
            "run_id": st.sampled_from(["r1", "r2"]),
            "tenant": st.sampled_from(["acme", "umbrella"]),
            "principal": st.sampled_from(["ana", "eve"]),
            "resource": st.sampled_from(["search", "refund"]),
            "depth": st.integers(0, 2),
            "budget": st.fixed_dictionaries({}, optional={"micros": st.integers(0, 20)}),
            "arguments": st.fixed_dictionaries(
                {},
                optional={
                    "to": st.sampled_from(["a@b.example", "a@evil.example"]),
                    "amount": st.integers(0, 6) | st.just(1.0),
                    "urgent": st.booleans() | st.just("yes"),
                    "extra": st.text("ab", max_size=2),
                },
            ),
        },
    ),
)


def said(decision: GateDecision) -> tuple[str, str, frozenset[str]]:
    return decision.outcome, decision.reason, frozenset(hit.rule for hit in decision.rules)


@pytest.mark.promise("F1")
@given(st.dictionaries(st.sampled_from(list(GateRequest.model_fields)), json_values | st.binary(max_size=3)))
def test_a_broken_request_is_never_allowed_what_a_whole_one_is_not(changes: dict[str, Any]) -> None:
    broken = GateRequest.model_construct(**{**DEFAULTS, **WRITE, "arguments": {"amount": 500}, **changes})
    decision = LIMITED.decide(broken)
    touched = {"arguments", "resource", "stage", "side_effect"} & set(changes)
    if not touched:
        assert decision.outcome == "deny"
    assert decision.digest == LIMITED.digest


@given(json_values)
def test_no_spelling_of_an_amount_slips_past_its_limit(amount: Any) -> None:
    request = GateRequest.model_construct(
        **{**GateRequest(**DEFAULTS).__dict__, **WRITE, "arguments": {"amount": amount}}
    )
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    is_whole = is_number and math.isfinite(amount) and amount == int(amount)
    allowed = LIMITED.decide(request).outcome == "allow"
    assert allowed == (is_whole and -(2**63) <= amount <= 100)


@settings(max_examples=60, deadline=None)
@given(st.lists(requests, max_size=12))
def test_sharing_decisions_never_changes_one(asked: list[GateRequest]) -> None:
    shared = CedarGate(LEAN.rules)
    for request in asked:
        assert said(shared.decide(request)) == said(CedarGate(LEAN.rules).decide(request))


@given(requests)
def test_hiding_what_no_rule_reads_never_changes_a_decision(request: GateRequest) -> None:
    assert said(LEAN.decide(request)) == said(WHOLE.decide(request))


@given(requests, st.sampled_from([None, "idempotent"]))
def test_a_request_that_shows_everything_is_what_the_schema_says(request: GateRequest, contract: str | None) -> None:
    request = request.model_copy(update={"idempotency": contract, "facts": {"n": 1.5, "l": ["a"], "f": True}})
    view = OPEN._stages[request.stage]
    seen = view.see(request)
    question = {
        "principal": {"type": "Principal", "id": seen.principal},
        "action": {"type": "Action", "id": request.stage},
        "resource": {"type": "Capability" if request.stage == "capability" else "Agent", "id": request.resource},
        "context": {**seen.context, "approved": False},
    }
    if request.stage == "model":
        question["resource"] = {"type": "Model", "id": request.resource}
    policies = cedarpy.PolicySet.from_str(PERMIT_ALL)
    result = cedarpy.is_authorized(question, policies, seen.entities, schema=SCHEMA)
    assert (result.diagnostics.errors, result.allowed) == ([], True)


@given(json_values)
def test_the_shipped_rules_never_let_a_write_through(arguments: Any) -> None:
    values = arguments if isinstance(arguments, dict) else {"a": arguments}
    for stage in ("capability", "memory"):
        request = GateRequest.model_construct(
            **{**GateRequest(**DEFAULTS).__dict__, **WRITE, "stage": stage, "arguments": values, "facts": values}
        )
        assert SHIPPED.decide(request).outcome == "deny"
