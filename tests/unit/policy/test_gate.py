"""The gate: invariants, default rules, approvals, explanations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.policy.asking import PERMIT_ALL, WRITE, approve, ask, gate_of

from retinue.policy.gate import CACHE_SIZE
from retinue.policy.load import load_gate
from retinue.runs.gate import GateDecision, in_full

BIG = """
@id("big") @outcome("approval") @reason("big refunds need a person")
forbid (principal, action == Action::"capability", resource == Capability::"refund")
when { context.arguments.numbers.hasTag("amount") && context.arguments.numbers.getTag("amount") > 100 };
"""
BLOCKED = """
@id("blocked") @reason("the account is blocked")
forbid (principal, action, resource)
when { context.arguments.texts.hasTag("account") && context.arguments.texts.getTag("account") == "x" };
"""


@pytest.mark.promise("F1")
@pytest.mark.parametrize(
    ("request_", "outcome", "rule"),
    [
        ({"stage": "request", "resource": "researcher"}, "allow", "default.requests"),
        ({"stage": "context", "resource": "researcher"}, "allow", "default.context"),
        ({"stage": "model", "resource": "builtin:extractive"}, "allow", "default.models"),
        ({"stage": "output", "resource": "researcher"}, "allow", "default.output"),
        ({"stage": "memory", "resource": "tenant"}, "allow", "default.recall"),
        ({"stage": "memory", "resource": "tenant", "side_effect": "write"}, "deny", None),
        ({}, "allow", "default.reads"),
        ({"rollout": "shadow"}, "allow", "default.reads"),
        ({"side_effect": "draft"}, "deny", None),
        (WRITE, "deny", None),
        ({**WRITE, "idempotency": None}, "deny", "retinue.contract"),
        ({**WRITE, "idempotency": "probably"}, "deny", "retinue.contract"),
        ({**WRITE, "rollout": "shadow"}, "deny", "retinue.shadow"),
        ({"side_effect": "overwrite"}, "deny", "retinue.effect"),
        ({"rollout": "fully"}, "deny", "retinue.effect"),
        ({"tenant": ""}, "deny", "retinue.identity"),
        ({"principal": ""}, "deny", "retinue.identity"),
        ({"facts": {"resource_tenant": "other"}}, "deny", "retinue.tenant"),
        ({"facts": {"resource_tenant": "acme"}}, "allow", "default.reads"),
    ],
)
def test_the_rules_without_a_policy_folder(request_: dict[str, Any], outcome: str, rule: str | None) -> None:
    decision = load_gate(None).decide(ask(**request_))
    assert decision.outcome == outcome
    assert [hit.rule for hit in decision.rules] == ([rule] if rule else [])
    assert decision.reason


def test_nothing_permits_is_told_with_a_remedy() -> None:
    decision = load_gate(None).decide(ask(**WRITE))
    assert decision.reason == "no rule permits capability 'refund'; add a permit rule for it"


def test_invariants_stand_above_a_rule_that_permits_all(tmp_path: Path) -> None:
    gate = gate_of(PERMIT_ALL, tenants=frozenset({"acme"}), kill_switch=tmp_path / "stop")
    assert gate.decide(ask(**WRITE)).outcome == "allow"
    assert gate.decide(ask(tenant="umbrella")).rules[0].rule == "retinue.tenant"
    assert gate.decide(ask(**{**WRITE, "rollout": "shadow"})).outcome == "deny"


def test_the_kill_switch_works_at_once_and_also_on_shared_decisions(tmp_path: Path) -> None:
    gate = gate_of(PERMIT_ALL, kill_switch=tmp_path / "stop")
    assert gate.decide(ask()).outcome == "allow"
    (tmp_path / "stop").touch()
    assert gate.decide(ask()).rules[0].rule == "retinue.kill_switch"
    (tmp_path / "stop").unlink()
    assert gate.decide(ask()).outcome == "allow"
    assert gate_of(PERMIT_ALL, kill_switch=True).decide(ask()).outcome == "deny"


def test_a_kill_switch_that_cannot_be_seen_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gate = gate_of(PERMIT_ALL, kill_switch=tmp_path / "file" / "stop")
    assert gate.decide(ask()).rules[0].rule == "retinue.kill_switch"


@pytest.mark.promise("F2")
@pytest.mark.parametrize(
    ("condition", "change"),
    [
        ('context.tenant == "acme"', {"tenant": "b"}),
        ('context.agent == "clerk"', {"agent": "b"}),
        ('principal == Principal::"ana"', {"principal": "b"}),
        ('context.route == "cli"', {"route": "http"}),
        ("context.depth == 0", {"depth": 1}),
        ('context.version == "1"', {"version": "2"}),
        ('context.side_effect == "read"', {"side_effect": "draft"}),
        ('context.sensitivity == "internal"', {"sensitivity": "secret"}),
        ('context.rollout == "full"', {"rollout": "canary"}),
        ("!(context has idempotency)", {"idempotency": "at_most_once"}),
        ("!(context.budget has micros && context.budget.micros < 5)", {"budget": {"micros": 4}}),
        ('["a.example"].containsAll(context.hosts)', {"arguments": {"u": "http://b.example"}}),
        ('!context.arguments.names.contains("n")', {"arguments": {"n": 1}}),
        ('!context.arguments.numbers.hasTag("n")', {"arguments": {"n": 1}}),
        ('!(context.arguments.decimals.hasTag("n") && context.arguments.decimals.getTag("n") == decimal("0.5"))',
         {"arguments": {"n": 0.5}}),
        ('!context.arguments.flags.hasTag("n")', {"arguments": {"n": False}}),
        ('!(context.arguments.paths.hasTag("n") && context.arguments.paths.getTag("n") like "/etc/*")',
         {"arguments": {"n": "/srv/../etc/x"}}),
        ('!(context.arguments.lists.hasTag("n[]") && context.arguments.lists.getTag("n[]").contains("x"))',
         {"arguments": {"n": ["y", "x"]}}),
        ('!(context.arguments.hosts.hasTag("n") && context.arguments.hosts.getTag("n").contains("x"))',
         {"arguments": {"n": "http://x/"}}),
        ('!context.facts.texts.hasTag("n")', {"facts": {"n": "a"}}),
    ],
)  # fmt: skip
def test_a_rule_sees_each_field(condition: str, change: dict[str, Any]) -> None:
    gate = gate_of(f'@id("p") permit (principal, action, resource) when {{ {condition} }};')
    assert gate.decide(ask()).outcome == "allow"
    assert gate.decide(ask(**change)).outcome == "deny"
    assert gate.decide(ask()).outcome == "allow"


@pytest.mark.parametrize("amount", ["500", True, 100.5, 2**70, float("nan"), [500], ["5"]])
def test_a_value_that_the_rule_cannot_read_is_denied(amount: object) -> None:
    gate = gate_of(PERMIT_ALL, BIG.replace('"amount"', '"amount[].max"') if isinstance(amount, list) else BIG)
    decision = gate.decide(ask(**WRITE, arguments={"amount": amount}))
    assert decision.outcome in ("deny", "approval_required")
    if amount != [500]:
        assert decision.rules[0].rule == "retinue.unclear"
    assert gate.decide(ask(**{**WRITE, "resource": "search"}, arguments={"amount": amount})).outcome == "allow"


def test_a_rule_that_overflows_denies() -> None:
    gate = gate_of(
        PERMIT_ALL,
        '@id("f") forbid (principal, action, resource) when '
        '{ context.arguments.numbers.hasTag("n") && context.arguments.numbers.getTag("n") * 4 > 100 };',
    )
    assert gate.decide(ask(arguments={"n": 5})).outcome == "allow"
    decision = gate.decide(ask(arguments={"n": 2**62}))
    assert (decision.outcome, decision.rules[0].rule) == ("deny", "retinue.engine")
    assert "overflow" in decision.reason


def test_a_rule_names_all_that_decided() -> None:
    gate = gate_of(PERMIT_ALL, BLOCKED, '@id("also") forbid (principal, action, resource);')
    decision = gate.decide(ask(arguments={"account": "x"}))
    assert sorted(hit.rule for hit in decision.rules) == ["also", "blocked"]
    assert "the account is blocked (rule blocked)" in decision.reason


@pytest.mark.promise("F3")
@pytest.mark.parametrize(
    ("approval", "outcome", "doubt"),
    [
        (None, "approval_required", ""),
        ({}, "allow", ""),
        ({"digest": "d2"}, "approval_required", "given for other arguments"),
        ({"digest": ""}, "approval_required", "given for other arguments"),
        ({"policy_digest": "old"}, "approval_required", "given under other rules"),
        ({"by": "ana"}, "approval_required", "cannot approve it alone"),
        ({"by": ""}, "approval_required", "names no approver"),
    ],
)
def test_an_approval_counts_for_one_call_by_someone_else(
    approval: dict[str, str] | None, outcome: str, doubt: str
) -> None:
    gate = gate_of(PERMIT_ALL, BIG)
    given = None if approval is None else approve(gate, **approval)
    decision = gate.decide(ask(**WRITE, arguments={"amount": 500}, approval=given))
    assert decision.outcome == outcome
    assert doubt in decision.reason
    if outcome != "allow":
        assert [(hit.rule, hit.outcome) for hit in decision.rules] == [("big", "approval_required")]


def test_no_person_is_asked_when_their_yes_would_not_help() -> None:
    gate = gate_of(PERMIT_ALL, BIG, BLOCKED)
    decision = gate.decide(ask(**WRITE, arguments={"amount": 500, "account": "x"}))
    assert (decision.outcome, [hit.rule for hit in decision.rules]) == ("deny", ["blocked"])
    unpermitted = gate_of(BIG).decide(ask(**WRITE, arguments={"amount": 500}))
    assert (unpermitted.outcome, unpermitted.rules) == ("deny", ())


def test_an_approval_does_not_lift_other_rules() -> None:
    gate = gate_of(PERMIT_ALL, BIG, BLOCKED)
    arguments = {"amount": 500, "account": "x"}
    assert gate.decide(ask(**WRITE, arguments=arguments, approval=approve(gate))).outcome == "deny"


def test_a_request_without_digest_takes_no_approval() -> None:
    gate = gate_of(PERMIT_ALL, BIG)
    request = ask(**{**WRITE, "digest": ""}, arguments={"amount": 500}, approval=approve(gate, digest=""))
    assert gate.decide(request).outcome == "approval_required"


def test_a_rule_may_let_the_requester_approve() -> None:
    confirm = BIG.replace('@outcome("approval")', '@outcome("approval") @approver("anyone")')
    gate = gate_of(PERMIT_ALL, confirm)
    own = approve(gate, by="ana")
    assert gate.decide(ask(**WRITE, arguments={"amount": 500}, approval=own)).outcome == "allow"
    both = gate_of(PERMIT_ALL, confirm, BIG.replace('"big"', '"bigger"').replace("100", "400"))
    own = approve(both, by="ana")
    assert both.decide(ask(**WRITE, arguments={"amount": 200}, approval=own)).outcome == "allow"
    assert both.decide(ask(**WRITE, arguments={"amount": 500}, approval=own)).outcome == "approval_required"


def test_a_permit_may_wait_for_an_approval() -> None:
    gate = gate_of('@id("p") @reason("a person must agree") permit (principal, action, resource) '
                   "when { context.approved };")  # fmt: skip
    asked = gate.decide(ask(**WRITE))
    assert (asked.outcome, [hit.rule for hit in asked.rules]) == ("approval_required", ["p"])
    assert gate.decide(ask(**WRITE, approval=approve(gate))).outcome == "allow"


def test_equal_requests_share_a_decision_and_the_cache_is_bounded() -> None:
    gate = gate_of(PERMIT_ALL, '@id("t") forbid (principal, action, resource) when { context.tenant == "x" };')
    first = gate.decide(ask(run_id="r1", arguments={"a": 1}, budget={"micros": 5}))
    again = gate.decide(ask(run_id="r2", arguments={"a": 2}, budget={"micros": 4}))
    assert gate.decide(ask(run_id="r3")) is again
    assert again == first.model_copy(update={"micros": 0})
    for number in range(CACHE_SIZE + 10):
        gate.decide(ask(tenant=f"t{number}"))
    assert len(gate._decisions) == CACHE_SIZE


@pytest.mark.parametrize(
    ("reason", "hits"),
    [
        ("fine (rule a)", [("a", "allow", "fine")]),
        ("fine (rule a); good (rule b)", [("a", "allow", "fine"), ("b", "allow", "good")]),
        ("fine (rule a); but late", [("a", "allow", "fine")]),
        ("mixed", [("a", "allow", "fine"), ("b", "deny", "never")]),
        ("twice", [("a", "allow", "fine"), ("a", "allow", "good")]),
        ("no rule permits it", []),
    ],
)
def test_the_journal_says_a_decision_once_and_in_full(reason: str, hits: list[tuple[str, str, str]]) -> None:
    rules = [{"rule": rule, "outcome": outcome, "reason": why} for rule, outcome, why in hits]
    decision = GateDecision.model_validate_json(
        json.dumps({"outcome": "allow", "reason": reason, "rules": rules, "digest": "d", "micros": 3})
    )
    whole = decision.model_dump(mode="json")
    stored = json.loads(json.dumps(decision.facts))
    assert in_full(stored) == whole
    assert len(json.dumps(stored)) <= len(json.dumps(whole))
    assert in_full(whole) == whole, "as journals of earlier versions hold it"
