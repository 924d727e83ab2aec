"""Rules, cases and decisions as people read them. Pure: values in, text out.

Knows no store and no stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from retinue.ingress.policy_cases import Checked
from retinue.ingress.policy_record import Difference, Explained, Replayed
from retinue.ingress.render import columns, counted, cut, moment, short
from retinue.policy.rules import Rule

_SHOWN = 12
_VALUE = 200
_LISTED = 50


def rules_text(rules: Sequence[Rule], digest: str) -> str:
    """A line for each rule, with its file (of the one folder) and line; and the digest of all."""
    rows = [[rule.id, _outcome(rule), _scope(rule), rule.where.rpartition("/")[2]] for rule in rules]
    return f"{columns(('RULE', 'SAYS', 'ABOUT', 'WHERE'), rows)}\n\n{counted(len(rules), 'rule')}, digest {digest}"


def _outcome(rule: Rule) -> str:
    if rule.outcome != "approval_required":
        return rule.outcome
    who = f" by {rule.role}" if rule.role else ", by the requester too" if rule.self_approval else ""
    return f"approval{who}"


def _scope(rule: Rule) -> str:
    stages = ", ".join(sorted(rule.stages)) if rule.stages is not None else "any stage"
    return stages if rule.resource is None else f"{stages} {rule.resource}"


def cases_text(path: str, checked: Sequence[Checked], digest: str) -> str:
    """A line for each case, what is wrong below it, and the count."""
    rows = [
        ["ok" if one.ok else "FAIL", one.name, one.expect, one.outcome, ", ".join(one.rules) or "(no rule)"]
        for one in checked
    ]
    failed = [one for one in checked if not one.ok]
    parts = [columns(("", "CASE", "EXPECTED", "SAID", "BY"), rows)]
    parts += ["\n".join(f"{path} line {one.line}: {one.name}: {problem}" for problem in one.problems) for one in failed]
    parts.append(f"{len(checked) - len(failed)} of {counted(len(checked), 'case')} as expected, digest {digest}")
    return "\n\n".join(parts)


def explained_text(found: Sequence[Explained]) -> str:
    """A block for each decision."""
    return "\n\n".join("\n".join(_block(one)) for one in found)


def _block(one: Explained) -> Iterator[str]:
    yield f"{one.outcome}  {one.stage} {one.resource}" + (f"  ({one.step})" if one.step else "")
    yield f"  {'when':<10}{moment(one.at)}, in {one.micros} µs"
    if not one.rules:
        yield f"  {'why':<10}{one.reason}"
    for hit in one.rules:
        yield f"  {'rule':<10}{hit['rule']}: {hit['outcome']}" + (f", {hit['reason']}" if hit["reason"] else "")
    for name, value in one.saw.items():
        yield f"  {'saw':<10}{name} = {_value(value)}"
    yield f"  {'digest':<10}{one.digest}" + (
        "" if one.in_force else ", not in force any more: all it could see is shown"
    )
    if one.approval is not None:
        yield f"  {'approval':<10}{one.approval['request_id']} by {one.approval['by']}, {moment(one.approval['at'])}"
    if one.edited is not None:
        yield f"  {'edited':<10}by {one.edited['by']}: asked as {one.edited['asked']}, called as {one.edited['called']}"
    if one.lacks:
        yield f"  {'lacks':<10}{', '.join(one.lacks)}: this journal does not hold it"


def _value(value: object) -> str:
    return cut(json.dumps(value, ensure_ascii=False), _VALUE)


def replayed_text(said: Replayed) -> str:
    """The differences, then the counts."""
    parts = []
    if said.differences:
        head = ("RUN", "STEP", "ABOUT", "WAS", "WOULD BE", "BY")
        parts.append(columns(head, [_difference(one) for one in said.differences[:_LISTED]]))
    told = sum(said.changed.values())
    if told > _LISTED:
        parts.append(f"… {told - _LISTED:,} more; --json has the first {len(said.differences):,}")
    parts.append("\n".join(_counts(said)))
    return "\n\n".join(parts)


def _difference(one: Difference) -> list[str]:
    about = f"{one.stage} {one.resource}"
    return [short(one.run_id), one.step or "-", about, one.before, one.after, ", ".join(one.rules_after) or "(no rule)"]


def _counts(said: Replayed) -> Iterator[str]:
    yield f"{counted(said.asked, 'question')} of {counted(said.runs, 'run')}, asked of rules with digest {said.digest}"
    yield f"{said.same:,} answered the same, {said.other_rules:,} the same by other rules"
    for change, count in sorted(said.changed.items()):
        yield f"{count:,} from {change}"
    for lacking, count in sorted(said.not_rebuilt.items()):
        yield f"{count:,} cannot be asked again: their journals do not hold {lacking}"
    if said.switch:
        yield f"{said.switch:,} were answered by a kill switch and are not compared"
    if said.more:
        yield "not all runs were looked at: --limit raises how many, a shorter --since takes the newest"
