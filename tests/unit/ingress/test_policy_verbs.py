"""Rules from the command line: checked, tested by cases, explained, replayed; and approvals as people give them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit

pytestmark = pytest.mark.promise("F2")

FLOWS = """
from retinue import Context, tool, workflow


@tool(side_effect="write", idempotency="idempotent")
def pay(amount: int, to: str = "the shop", *, key: str) -> str:
    \"\"\"Pays.\"\"\"
    return f"paid {amount} to {to}"


@workflow
async def buy(ctx: Context, amount: int) -> str:
    return await ctx.call(pay, amount=amount)
"""
RULES = """@id("all") @reason("this project is for buying")
permit (principal, action, resource) unless { action == Action::"doubt" };

@id("big") @outcome("approval") @approver("role:lead") @reason("payments above 10 need a lead")
forbid (principal, action == Action::"capability", resource == Capability::"pay")
when { context.arguments.numbers.hasTag("amount") && context.arguments.numbers.getTag("amount") > 10 };
"""
CASES = """defaults:
  resource: pay
  side_effect: write
cases:
  - name: small
    arguments: {amount: 10}
    expect: allow
    rules: [all]
  - name: big
    arguments: {amount: 11}
    expect: approval_required
    rule: big
    roles: [lead]
  - name: big, approved by a lead
    arguments: {amount: 11}
    approved_by: bob
    expect: allow
  - name: big, approved by somebody
    arguments: {amount: 11}
    approved_by: carl
    expect: approval_required
    reason: does not have the role lead
"""
SETTINGS = """modules: [policy_flows]
principal: ana
roles:
  lead: [bob]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for the module; it is the current folder."""
    folder = tmp_path_factory.mktemp("policy") / "mine"
    (folder / "policy").mkdir(parents=True)
    (folder / "policy_flows.py").write_text(FLOWS, encoding="utf-8")
    (folder / "retinue.yaml").write_text(SETTINGS, encoding="utf-8")
    (folder / "policy/rules.cedar").write_text(RULES, encoding="utf-8")
    (folder / "cases.yaml").write_text(CASES, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def asking(retinue: Command, amount: int) -> tuple[str, str]:
    """A run that asks whether it may pay: its id and its request's."""
    said = retinue("run", "buy", "--input", str(amount), "--local", "--json")
    assert said.code == Exit.asks, said
    [request] = said.json["requests"]
    return str(said.json["run_id"]), str(request["request_id"])


def test_check_lists_the_rules_with_their_places(retinue: Command, project: Path) -> None:
    said = retinue("policy", "check")
    assert said.code == Exit.done and "approval by lead" in said.out and "rules.cedar:4" in said.out
    assert [rule["id"] for rule in retinue("policy", "check", "policy", "--json").json["rules"]] == ["all", "big"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            RULES.replace("role:lead", "role:leads"),
            "other.cedar:4: rule 'big': `roles:` of retinue.yaml has no 'le",
        ),
        (RULES.replace("context.arguments", "context.argument"), "other.cedar:4"),
        (RULES.replace("role:lead", "team:lead"), '@approver("anyone") or @approver("role:NAME")'),
    ],
)
def test_check_refuses_rules_that_cannot_be_used(retinue: Command, project: Path, text: str, said: str) -> None:
    (project / "other").mkdir(exist_ok=True)
    (project / "other/other.cedar").write_text(text, encoding="utf-8")
    refused = retinue("policy", "check", "other")
    assert refused.code == Exit.usage and said in refused.err


def test_cases_that_hold_and_cases_that_do_not(retinue: Command, project: Path) -> None:
    good = retinue("policy", "test", "cases.yaml")
    assert good.code == Exit.done and "4 of 4 cases as expected" in good.out
    (project / "wrong.yaml").write_text(
        CASES.replace("rules: [all]", "rules: [big]").replace("amount: 11", "amount: 9")
    )
    bad = retinue("policy", "test", "wrong.yaml")
    assert bad.code == Exit.failed and "0 of 4 cases as expected" not in bad.out
    assert "wrong.yaml line 5: small: expected the rules big to decide, it was decided by all" in bad.out
    assert "wrong.yaml line 9: big: expected approval_required, got allow by all" in bad.out
    facts = retinue("policy", "test", "wrong.yaml", "--json").json
    assert [case["ok"] for case in facts["cases"]] == [False, False, True, False]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    rule: big", "    ruel: big", "line 12: there is no field 'ruel': did you mean rule"),
        ("    expect: allow\n    rules", "    rules", "line 5: `expect:` is missing"),
        ("expect: approval_required\n    rule", "expect: ask\n    rule", "line 11: expect: Input should be 'allow'"),
        (
            "  side_effect: write",
            "  side_efect: write",
            "line 3: there is no field 'side_efect': did you mean side_effect",
        ),
        ("  resource: pay\n", "", "needs a `resource:`"),
        ("cases:", "case:", "there is no key 'case'"),
        ("{amount: 10}", "10", "line 6: arguments"),
        ("  - name: small", "  - small\n  - name: small", "line 5: a case must hold"),
    ],
)
def test_a_file_of_cases_with_a_mistake_is_refused_with_its_line(
    retinue: Command, project: Path, old: str, new: str, said: str
) -> None:
    assert old in CASES
    (project / "bad.yaml").write_text(CASES.replace(old, new, 1), encoding="utf-8")
    refused = retinue("policy", "test", "bad.yaml")
    assert refused.code == Exit.usage and said in refused.err


@pytest.mark.promise("F3")
def test_who_cannot_approve_is_told_so_at_once(retinue: Command, project: Path) -> None:
    run_id, request = asking(retinue, 30)
    own = retinue("approve", request)
    assert own.code == Exit.usage and "ana asked for it and cannot approve it alone" in own.err
    other = retinue("approve", request, "--by", "carl")
    assert other.code == Exit.usage and "needs the role lead, which carl does not have; have it: bob" in other.err
    assert retinue("inbox", run_id, "--json").json["waits"][0]["request_id"] == request
    assert retinue("approve", request, "--by", "bob").code == Exit.done
    assert "paid 30 to the shop" in retinue("wait", run_id, "--local").out


@pytest.mark.promise("F3")
def test_a_call_is_approved_with_other_arguments(retinue: Command, project: Path) -> None:
    run_id, request = asking(retinue, 40)
    for wrong, said in (("{amount", "is not JSON"), ("[1]", "must be an object"), ('{"amount": "x"}', "amount")):
        refused = retinue("approve", request, "--by", "bob", "--edit", wrong)
        assert refused.code == Exit.usage and said in refused.err
    assert retinue("approve", request, "--by", "bob", "--edit", '{"to": "the baker"}').code == Exit.done
    assert "paid 40 to the baker" in retinue("wait", run_id, "--local").out
    told = retinue("policy", "explain", run_id, "pay", "--json").json
    assert told[-1]["edited"]["by"] == "bob" and told[-1]["edited"]["asked"] != told[-1]["edited"]["called"]


def test_explain_says_which_rules_decided_what_they_saw_and_whose_yes_it_was(retinue: Command, project: Path) -> None:
    run_id, request = asking(retinue, 50)
    assert retinue("approve", request, "--by", "bob").code == Exit.done
    assert retinue("wait", run_id, "--local").code == Exit.done
    asked, made = retinue("policy", "explain", run_id, "pay#0", "--json").json
    assert asked["outcome"] == "approval_required" and [rule["rule"] for rule in asked["rules"]] == ["big"]
    assert asked["saw"] == {"arguments.numbers.amount": 50} and asked["in_force"] and asked["approval"] is None
    assert made["outcome"] == "allow" and made["approval"]["by"] == "bob" and made["lacks"] == []
    text = retinue("policy", "explain", run_id).out
    assert "approval_required  capability pay" in text and "arguments.numbers.amount = 50" in text
    assert "allow  request buy" in text and f"{request} by bob" in text
    none = retinue("policy", "explain", run_id, "elsewhere")
    assert none.code == Exit.usage and "steps with a decision: 0/pay#0" in none.err


def test_replay_shows_what_other_rules_would_have_decided(retinue: Command, project: Path) -> None:
    said = retinue("run", "buy", "--input", "7", "--local", "--json")
    assert said.code == Exit.done
    same = retinue("policy", "replay", "--json").json
    assert same["changed"] == {} and same["same"] == same["asked"] > 2 and same["not_rebuilt"] == {}
    (project / "tight").mkdir()
    (project / "tight/rules.cedar").write_text(RULES.replace("> 10 }", "> 5 }"), encoding="utf-8")
    tight = retinue("policy", "replay", "--since", "1h", "--policy", "tight", "--json").json
    assert tight["changed"] == {"allow to approval_required": 1}
    [difference] = tight["differences"]
    assert (difference["run_id"], difference["step"]) == (said.json["run_id"], "0/pay#0")
    assert difference["rules_before"] == ["all"] and difference["rules_after"] == ["big"]
    text = retinue("policy", "replay", "--policy", "tight").out
    assert "1 from allow to approval_required" in text and "0/pay#0" in text
    few = retinue("policy", "replay", "--limit", "1")
    assert "not all runs were looked at" in few.out


def test_explain_shows_all_that_rules_could_see_where_none_decided(
    retinue: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "none").mkdir()
    (project / "none/rules.cedar").write_text(
        '@id("thinking") permit (principal, action == Action::"request", resource);'
    )
    monkeypatch.setenv("RETINUE_POLICY__FOLDER", "none")
    said = retinue("run", "buy", "--input", "7", "--local", "--json")
    assert said.code == Exit.failed, said.err
    [made] = retinue("policy", "explain", said.json["run_id"], "pay#0", "--json").json
    assert (made["outcome"], made["rules"]) == ("deny", [])
    assert made["saw"]["arguments"] == {"amount": 7, "to": "the shop"} and made["saw"]["principal"] == "ana"
