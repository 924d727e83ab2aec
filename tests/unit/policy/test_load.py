"""Loading rules: whatever is wrong with a file stops the start and says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.policy.asking import PERMIT_ALL, ask, gate_of

from retinue.policy.load import load_gate
from retinue.policy.rules import read_rules
from retinue.runs.errors import ConfigError

FORBID = '@id("f") forbid (principal, action, resource)'


@pytest.mark.promise("F2")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('\n// note; with "one\n@id("a") permit (principal, action, resource) when { true ;', 3, "not a Cedar rule"),
        (f'{PERMIT_ALL}\n\n@id("b")\npermit (principl, action, resource);', 3, "not a Cedar rule"),
        (f"{PERMIT_ALL}\npermit (principal, action, resource)", 2, "not a Cedar rule"),
        ("permit (principal, action, resource);", 1, "id ''"),
        ('@id("a b") permit (principal, action, resource);', 1, "id 'a b'"),
        ('@id("retinue.x") permit (principal, action, resource);', 1, "reserved"),
        (f"{PERMIT_ALL}\n{PERMIT_ALL}", 2, "taken by rules.cedar:1"),
        ('@id("a") @reson("x") permit (principal, action, resource);', 1, "Did you mean @reason"),
        ('@id("a") @outcome("approve") forbid (principal, action, resource);', 1, '@outcome("approval")'),
        ('@id("a") @outcome("approval") permit (principal, action, resource);', 1, "Only a forbid"),
        ('@id("a") @approver("anyone") forbid (principal, action, resource);', 1, "without @outcome"),
        ('@id("a") permit (principal == ?principal, action, resource);', 1, "template"),
        (FORBID + ' when { context.tenent == "x" };', 1, "attribute `tenent`"),
        (FORBID + " when { context.depth == true };", 1, "not compatible"),
        (FORBID + ' when { context.side_effect == "wirte" };', 1, "one of read, draft, write"),
        (FORBID + ' when { ["ful"].contains(context.rollout) };', 1, "one of shadow, canary, full"),
        (FORBID + " when { context.budget.micros < 5 };", 1, "optional attribute"),
        (FORBID + ' when { context.arguments.numbers.getTag("a") > 5 };', 1, "safety of access"),
        (FORBID + ' when { context.arguments.numbers.getTag("a") > 5 };', 1, 'numbers.hasTag("a") && context'),
        (
            FORBID + ' when { context.facts.texts.host like "*.org" };',
            1,
            'context.facts.texts.hasTag("host") && context',
        ),
        (FORBID + ' when { Numbers::"arguments".hasTag("a") };', 1, "through context.arguments"),
        ('@id("a") forbid (principal, action == Action::"capabilty", resource);', 1, "capabilty"),
        ('@id("a") forbid (principal, action == Action::"model", resource == Capability::"x");', 1, "applicable"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_rules({"rules.cedar": text})
    assert str(refused.value).startswith(f"rules.cedar:{line}: ")
    assert words in str(refused.value)


def test_ids_are_unique_across_files() -> None:
    with pytest.raises(ConfigError, match=r"b\.cedar:1: rule id 'all' is taken by a\.cedar:1"):
        read_rules({"a.cedar": PERMIT_ALL, "b.cedar": PERMIT_ALL})


def test_comments_and_texts_may_hold_semicolons() -> None:
    rules = read_rules({"r": '// a; b\n@id("x") @reason("c; d // e") permit (principal, action, resource);\n// f;'})
    assert [(rule.id, rule.reason, rule.where) for rule in rules] == [("x", "c; d // e", "r:2")]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "b.cedar").write_text('@id("b") permit (principal, action, resource);')
    (tmp_path / "a.cedar").write_text('@id("a") permit (principal, action, resource);')
    (tmp_path / "notes.txt").write_text("not a rule")
    gate = load_gate(tmp_path)
    assert [rule.id for rule in gate.rules] == ["a", "b"]
    assert gate.rules[0].where == f"{tmp_path / 'a.cedar'}:1"


def test_a_missing_empty_or_unreadable_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_gate(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"holds no \.cedar file"):
        load_gate(tmp_path)
    (tmp_path / "a.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_gate(tmp_path)


def test_the_digest_follows_the_rules_and_nothing_else(tmp_path: Path) -> None:
    one, two = gate_of(PERMIT_ALL), gate_of(PERMIT_ALL, FORBID + ' when { context.route == "x" };')
    assert one.digest == gate_of("\n\n" + PERMIT_ALL, kill_switch=tmp_path / "stop").digest
    assert one.digest != two.digest
    assert one.decide(ask()).digest == one.digest


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        ("true", set()),
        ('context.tenant == "a"', {("tenant",)}),
        ("context.budget has micros && context.budget.micros > 1", {("budget", "micros")}),
        ('context["route"] like "a*"', {("route",)}),
        ('context.arguments.texts.hasTag("to")', {("arguments", "texts", "to")}),
        ("context.arguments.texts.hasTag(context.route)", {("arguments", "texts"), ("route",)}),
        ("context.arguments == context.facts", {("arguments",), ("facts",)}),
        ("[context].contains(context)", {("*",)}),
        ('{a: context}.a.tenant == "x"', {("*",)}),
        ('principal == Principal::"ana"', {("principal",)}),
        ('if context.depth > 1 then context.approved else context.hosts.contains("x")',
         {("depth",), ("approved",), ("hosts",)}),
    ],
)  # fmt: skip
def test_what_a_rule_reads(condition: str, reads: set[tuple[str, ...]]) -> None:
    (rule,) = read_rules({"r": f"{FORBID} when {{ {condition} }};"})
    assert rule.reads == reads


def test_a_scope_on_the_principal_reads_it() -> None:
    (rule,) = read_rules({"r": '@id("a") permit (principal == Principal::"ana", action, resource);'})
    assert rule.reads == {("principal",)}
