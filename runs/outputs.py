"""Output discipline: raw reply → parse → schema → rules → confidence → result. Pure, a function a stage.

A rejection says what is wrong in words that are returned to the model a bounded number of times. Confidence
comes from checks that ran, never from the model's word. Each stage says what it found, and that is put on record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.rules import Rule, ask, read_rules

Stage = Literal["raw", "parse", "schema", "rules", "confidence", "result"]

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*)\n```\s*$", re.DOTALL)
_ERRORS = 5
"""Errors of a schema that are told at once."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an answer has to be: its type (None: free text), the rules besides those of the type, the least
    confidence that needs no person."""

    output: Any = None
    rules: tuple[Rule, ...] = ()
    min_confidence: float | None = None


def read_terms(what: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options `rules` and `min_confidence` of a definition, checked. InvalidInput names `what`."""
    least = options.get("min_confidence")
    if least is not None and not (isinstance(least, int | float) and 0 < least <= 1):
        raise InvalidInput(f"{what}: min_confidence is {least!r}: give a share above 0 and at most 1")
    return {"rules": read_rules(what, options.get("rules", ())), "min_confidence": least}


def version_part(rules: tuple[Rule, ...], least: float | None) -> tuple[Any, ...]:
    """What rules and the least confidence add to a definition's version; nothing where there are none."""
    return (tuple(one.fingerprint for one in rules), least) if rules or least is not None else ()


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was looked at in an answer: how much of it was good."""

    name: str
    good: float
    of: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.good / self.of

    def __str__(self) -> str:
        return f"{self.name} {self.good:g}/{self.of}"


@dataclass(frozen=True, slots=True)
class Validated:
    """An answer on its way through the stages: what was found so far. `errors` refuse it where it stands.

    `confidence` is 0 to 1; None where nothing was checked. `warnings` are problems that refuse nothing.
    """

    value: Json = None
    errors: tuple[str, ...] = ()
    confidence: float | None = None
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    failed: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    typed: Any = field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        """True when nothing refuses it."""
        return not self.errors

    @property
    def facts(self) -> dict[str, Json]:
        """What is put on record of it beside the words: the stage it came to, the checks, the rules that failed."""
        said: dict[str, Json] = {"stage": self.stages[-1] if self.stages else None, "stages": list(self.stages)}
        if self.checks:
            said["checks"] = {check.name: [check.good, check.of] for check in self.checks}
            said["confidence"] = self.confidence
        return said | ({"rules": list(self.failed)} if self.failed else {})

    def weak(self, least: float) -> tuple[Check, ...]:
        """The checks below a confidence."""
        return tuple(check for check in self.checks if check.share < least)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the stages are told beside the answer."""

    terms: Terms
    evidence: tuple[str, ...]


def validate(
    text: str, output: Any, evidence: tuple[str, ...] = (), rules: tuple[Rule, ...] = (), first: tuple[Check, ...] = ()
) -> Validated:
    """Check an answer against its type and rules; `evidence` are the texts the run has seen, for grounding, `first`
    are checks that were made before."""
    structured = output is not None
    stages = (_STAGES if structured else _TEXT_STAGES)[1:]
    return _through(stages, Validated(text, checks=first, stages=("raw",)), _Given(Terms(output, rules), evidence))


def validate_value(value: Json, terms: Terms, first: tuple[Check, ...] = (), typed: bool = True) -> Validated:
    """Check what is a value already (a workflow's output, a person's edit): schema, rules, confidence, result."""
    stages = _STAGES[2:] if typed and terms.output is not None else _TEXT_STAGES[1:]
    return _through(stages, Validated(value, checks=first), _Given(terms, ()))


def _through(stages: tuple[tuple[Stage, _Step], ...], answer: Validated, given: _Given) -> Validated:
    for name, step in stages:
        answer = replace(step(answer, given), stages=(*answer.stages, name))
        if not answer.ok:
            break
    return answer


_Step = Callable[[Validated, _Given], Validated]


def _parse(answer: Validated, given: _Given) -> Validated:
    """JSON, as it is or in a fence; nothing of it is mended."""
    try:
        return replace(answer, value=from_json(_unfenced(answer.value)))
    except ValueError as error:
        return replace(answer, errors=(f"the answer is not JSON: {error}",))


def _fit(answer: Validated, given: _Given) -> Validated:
    """The value as its type."""
    try:
        return replace(answer, typed=TypeAdapter(given.terms.output).validate_python(answer.value))
    except ValidationError as error:
        return replace(answer, errors=tuple(_said(item) for item in error.errors()[:_ERRORS]))


def _judge(answer: Validated, given: _Given) -> Validated:
    """The rules of the type, then those of the definition."""
    rules = (*rules_of(given.terms.output), *(one for one in given.terms.rules if one.tool is None))
    if not rules:
        return answer
    found = ask(rules, answer.typed)
    failed = [finding for finding in found if finding.problem is not None]
    return replace(
        answer,
        errors=tuple(str(finding.problem) for finding in failed if finding.rule.severity == "error"),
        warnings=tuple(f"{each.rule.name}: {each.problem}" for each in failed if each.rule.severity == "warning"),
        failed=tuple(finding.rule.name for finding in failed),
        checks=(*answer.checks, Check("rules", len(found) - len(failed), len(found))),
    )


def _weigh(answer: Validated, given: _Given) -> Validated:
    """How sure the checks are of the answer: as sure as the weakest of them."""
    value = answer.value if answer.typed is None else _as_json(answer, given)
    grounded = quotes_of(value, given.evidence)
    checks = answer.checks if grounded is None else (grounded, *answer.checks)
    return replace(answer, checks=checks, confidence=confidence_of(checks))


def _result(answer: Validated, given: _Given) -> Validated:
    """The typed answer as JSON."""
    return answer if given.terms.output is None else replace(answer, value=_as_json(answer, given))


def _strip(answer: Validated, given: _Given) -> Validated:
    """Free text is its own result; rules judge the text."""
    text = answer.value.strip() if isinstance(answer.value, str) else answer.value
    return replace(answer, value=text, typed=text)


_STAGES: tuple[tuple[Stage, _Step], ...] = (
    ("raw", lambda answer, given: answer),
    ("parse", _parse),
    ("schema", _fit),
    ("rules", _judge),
    ("confidence", _weigh),
    ("result", _result),
)
_TEXT_STAGES: tuple[tuple[Stage, _Step], ...] = (
    ("raw", lambda answer, given: answer),
    ("parse", _strip),
    ("rules", _judge),
    ("confidence", _weigh),
    ("result", _result),
)


def confidence_of(checks: tuple[Check, ...]) -> float | None:
    """The share of the weakest check; None when there is none."""
    return round(min(check.share for check in checks), 3) if checks else None


def quotes_of(value: Json, evidence: tuple[str, ...]) -> Check | None:
    """How many of an answer's quotes are found word for word in what the run has seen.

    None when the answer quotes nothing or the run has seen nothing.
    """
    quotes = [quote for quote in _quotes(value) if quote]
    if not quotes or not evidence:
        return None
    seen = "\n".join(evidence)
    return Check("quotes", sum(quote in seen for quote in quotes), len(quotes))


@cache
def rules_of(output: Any) -> tuple[Rule, ...]:
    """The rules that a type carries as `output_rules`. InvalidInput for what is no rule."""
    return read_rules(f"output_rules of {getattr(output, '__name__', output)}", getattr(output, "output_rules", ()))


def _as_json(answer: Validated, given: _Given) -> Json:
    output = given.terms.output
    return answer.value if output is None else TypeAdapter(output).dump_python(answer.typed, mode="json")


def _quotes(value: Json) -> list[str]:
    if isinstance(value, list):
        return [quote for item in value for quote in _quotes(item)]
    if isinstance(value, dict):
        own = [value["quote"]] if isinstance(value.get("quote"), str) else []
        return own + [quote for name, item in value.items() if name != "quote" for quote in _quotes(item)]
    return []


def _unfenced(text: str) -> str:
    match = _FENCE.match(text)
    return match[1] if match else text


def _said(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the answer"
    return f"{place}: {error['msg']} (got {str(error['input'])[:80]!r})"
