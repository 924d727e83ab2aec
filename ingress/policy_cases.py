"""Cases for rules: a table of requests with what the rules should say of each, read from YAML and asked.

Owns the format (docs/policy.md) and the comparison. Knows no run: everything a rule sees stands in the case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import ConfigError
from retinue.runs.gate import Approval, Gate, GateDecision, GateRequest, Stage
from retinue.runs.yaml_lines import KeyPath, YamlFile, read_yaml

Outcome = Literal["allow", "deny", "approval_required"]
_OF_AN_AGENT = ("request", "context", "output")
_DIGEST = "case"


class Asked(Frozen):
    """The fields of a request that a case may give; what it leaves out is usual.

    `approved_by` gives the call a valid approval of that person. `resource` is the agent at the stages that are about
    one, and has to be given at the others.
    """

    stage: Stage = "capability"
    resource: str | None = Field(default=None, min_length=1)
    tenant: str = "default"
    principal: str = "ana"
    agent: str = "agent"
    route: str = "api"
    depth: int = Field(default=0, ge=0)
    version: str = "1"
    side_effect: Literal["read", "draft", "write"] = "read"
    idempotency: Literal["idempotent", "reconcilable", "at_most_once"] | None = None
    sensitivity: Literal["public", "internal", "confidential", "secret"] = "internal"
    rollout: Literal["shadow", "canary", "full", "stopped"] = "full"
    arguments: dict[str, Json] = Field(default_factory=dict)
    facts: dict[str, Json] = Field(default_factory=dict)
    budget: dict[Literal["micros", "tokens", "hops", "steps"], int] = Field(default_factory=dict)
    approved_by: str | None = Field(default=None, min_length=1)


class Case(Asked):
    """A request and what is expected: the outcome, and where given a rule that decides, all rules that decide, the
    roles that a yes needs, and words of the reason.
    """

    name: str = ""
    expect: Outcome
    rule: str | None = None
    rules: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None
    reason: str | None = None


AnyAsked = TypeVar("AnyAsked", bound=Asked)


class Checked(Frozen):
    """What came of a case. `problems` says how the answer differs from what was expected; none: it does not."""

    name: str
    line: int
    expect: Outcome
    outcome: Outcome
    rules: tuple[str, ...]
    reason: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when the rules said what was expected."""
        return not self.problems


def read_cases(path: Path) -> list[tuple[int, Case]]:
    """The cases of a file with their lines. Raises ConfigError naming file, line, field and remedy."""
    file = read_yaml(path)
    for name in file.values:
        if name not in ("defaults", "cases"):
            where = f"{path} line {file.line((name,))}"
            raise ConfigError(f"{where}: there is no key {name!r}; a file of cases has `defaults:` and `cases:`")
    defaults, cases = file.values.get("defaults") or {}, file.values.get("cases")
    if not isinstance(cases, list) or not cases:
        raise ConfigError(f"{path}: it holds no `cases:`, a list with a request and what is expected in each")
    if not isinstance(defaults, dict):
        raise ConfigError(f"{path} line {file.line(('defaults',))}: `defaults:` must hold fields of a request")
    _read(file, ("defaults",), Asked, defaults)
    return [_case(file, number, defaults) for number in range(len(cases))]


def _case(file: YamlFile, number: int, defaults: Mapping[str, Json]) -> tuple[int, Case]:
    place, given = ("cases", number), file.values["cases"][number]
    line = file.line(place) or 0
    if not isinstance(given, dict):
        raise ConfigError(f"{file.path} line {line}: a case must hold `field: value` lines, not {given!r}")
    case = _read(file, place, Case, {**defaults, **given})
    if case.resource is None and case.stage not in _OF_AN_AGENT:
        raise ConfigError(
            f"{file.path} line {line}: a case at stage {case.stage!r} needs a `resource:`, such as a tool"
        )
    return line, case


def _read(file: YamlFile, place: KeyPath, model: type[AnyAsked], given: Json) -> AnyAsked:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        place = next((spot for spot in ((*place, field), ("defaults", field)) if spot in file.lines), place)
        raise ConfigError(f"{file.path} line {file.line(place)}: {_tell(model, field, first)}") from None


def _tell(model: type[Asked], field: str, fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(field, model.model_fields, n=2)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(model.model_fields)}"
        return f"there is no field {field!r}: {remedy}"
    if fault["type"] == "missing":
        return f"`{field}:` is missing: a case says what is expected, such as `expect: deny`"
    name = ".".join(map(str, fault["loc"]))
    return f"{name}: {fault['msg']} (got {fault['input']!r}); correct it"


def run_cases(gate: Gate, cases: list[tuple[int, Case]]) -> list[Checked]:
    """Ask each case and compare."""
    return [_checked(gate, line, number, case) for number, (line, case) in enumerate(cases, 1)]


def _checked(gate: Gate, line: int, number: int, case: Case) -> Checked:
    decision = gate.decide(request_of(case, gate.digest))
    return Checked(
        name=case.name or f"case {number}",
        line=line,
        expect=case.expect,
        outcome=decision.outcome,
        rules=tuple(hit.rule for hit in decision.rules),
        reason=decision.reason,
        problems=tuple(_problems(case, decision)),
    )


def request_of(case: Case, policy_digest: str) -> GateRequest:
    """The request that a case speaks of; a write without a contract has the strictest."""
    contract = case.idempotency or ("at_most_once" if case.side_effect == "write" else None)
    given = case.model_dump(include=set(GateRequest.model_fields) & set(Asked.model_fields))
    approval = None
    if case.approved_by is not None:
        approval = Approval(request_id="case", by=case.approved_by, at=0, digest=_DIGEST, policy_digest=policy_digest)
    fixed = {"run_id": "case", "resource": case.resource or case.agent, "idempotency": contract, "digest": _DIGEST}
    return GateRequest.model_validate({**given, **fixed, "approval": approval})


def _problems(case: Case, decision: GateDecision) -> Iterator[str]:
    rules = [hit.rule for hit in decision.rules]
    by = f"by {', '.join(rules)}" if rules else "by no rule"
    if decision.outcome != case.expect:
        yield f"expected {case.expect}, got {decision.outcome} {by}: {decision.reason}"
        return
    if case.rule is not None and case.rule not in rules:
        yield f"expected rule {case.rule} to decide, it was decided {by}"
    if case.rules is not None and sorted(case.rules) != sorted(rules):
        yield f"expected the rules {', '.join(case.rules) or 'none'} to decide, it was decided {by}"
    roles = decision.approver.roles if decision.approver is not None else ()
    if case.roles is not None and sorted(case.roles) != sorted(roles):
        yield f"expected a yes to need {', '.join(case.roles) or 'no role'}, it needs {', '.join(roles) or 'none'}"
    if case.reason is not None and case.reason not in decision.reason:
        yield f"expected {case.reason!r} in the reason, it is {decision.reason!r}"
