"""Output discipline: raw reply → parsed → schema → business rules → confidence → structured result. Pure.

A rejection says what is wrong in words that are returned to the model a bounded number of times. Confidence
comes from checks that ran, never from the model's word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from retinue.runs.contracts import Json

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*)\n```\s*$", re.DOTALL)

Rule = Callable[[Any], str | None]
"""A business rule: the problem in words, or None. A model may carry some as `output_rules` of its type."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A checked answer, or the errors that refuse it. `confidence` is 0..1; None where nothing was checked."""

    value: Json = None
    errors: tuple[str, ...] = ()
    confidence: float | None = None

    @property
    def ok(self) -> bool:
        """True when nothing refuses it."""
        return not self.errors


def validate(text: str, output: Any, evidence: tuple[str, ...] = ()) -> Validated:
    """Check an answer against its type; `evidence` are the texts the run has seen, for grounding."""
    if output is None:
        return Validated(text.strip(), (), None)
    try:
        parsed = from_json(_unfenced(text))
    except ValueError as error:
        return Validated(errors=(f"the answer is not JSON: {error}",))
    try:
        typed = TypeAdapter(output).validate_python(parsed)
    except ValidationError as error:
        return Validated(errors=tuple(_said(item) for item in error.errors()[:5]))
    problems = tuple(problem for rule in getattr(output, "output_rules", ()) if (problem := rule(typed)))
    value = TypeAdapter(output).dump_python(typed, mode="json")
    return Validated(value, problems, confidence_of(value, evidence))


def confidence_of(value: Json, evidence: tuple[str, ...]) -> float | None:
    """The share of an answer's quotes that are found word for word in what the run has seen.

    None when the answer quotes nothing or the run has seen nothing.
    """
    quotes = [quote for quote in _quotes(value) if quote]
    if not quotes or not evidence:
        return None
    seen = "\n".join(evidence)
    found = sum(quote in seen for quote in quotes)
    return round(found / len(quotes), 3)


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
