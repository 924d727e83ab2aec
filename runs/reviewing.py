"""A person decides on an answer that the checks are not sure of: approves it, edits it, or rejects it.

Owns when that is due, what the person is shown and how what they say is read. What was said is an outcome of the
run like any other: journaled, replayed, waited for without holding anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic_core import to_json

from retinue.runs.context import Context
from retinue.runs.contracts import Json
from retinue.runs.journal import Outcome
from retinue.runs.outputs import Terms, Validated, validate_value

WAYS = 'answer `approve`, {"edit": ANSWER} to give another one, or {"reject": "REASON"}'
COMMANDS = ("approve", """--value '{"edit": ANSWER}'""", """--value '{"reject": "REASON"}'""")
"""What a person may say."""
REVIEW = "review"
"""The name of such a question among the steps of a run."""
MARK = "low_confidence"
"""The fact that tells such a question from others."""
_TRIES = 5
"""Words that cannot be used, and edits that do not fit, are asked about again so often."""
_SHOWN = 8_000
"""Characters of an answer that a person is shown."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an answer: `problem` is why it was rejected; `by` is None when nobody said anything in time."""

    answer: Validated
    word: Literal["approved", "edited", "rejected"]
    by: str | None = None
    problem: str | None = None


def due(terms: Terms, checked: Validated) -> bool:
    """True when the checks come to less than the terms want; also when nothing could be checked."""
    least = terms.min_confidence
    return least is not None and (checked.confidence is None or checked.confidence < least)


async def review(ctx: Context, name: str, terms: Terms, checked: Validated) -> Verdict:
    """Ask a person until they say something that can be used; an edit is checked against schema and rules."""
    problem = ""
    for _ in range(_TRIES):
        said = await ctx.put_to_person(REVIEW, _shown(name, terms, checked, problem), _facts(terms, checked))
        verdict = _read(said, terms, checked)
        if isinstance(verdict, Verdict):
            _record(ctx, verdict, said)
            return verdict
        problem = verdict
    return Verdict(checked, "rejected", None, f"after {_TRIES} answers that could not be used: {problem}")


def _shown(name: str, terms: Terms, checked: Validated, problem: str) -> str:
    least = terms.min_confidence or 1.0
    found = ", ".join(map(str, checked.weak(least))) or "nothing could be checked"
    text = checked.value if isinstance(checked.value, str) else to_json(checked.value).decode()
    lines = [
        f"What you said could not be used: {problem}" if problem else "",
        f"{name} has an answer with confidence {checked.confidence}, below {least:g}: {found}",
        *checked.warnings,
        text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)",
        f"Is it good? Then {WAYS}",
    ]
    return "\n".join(filter(None, lines))


def _facts(terms: Terms, checked: Validated) -> dict[str, Json]:
    weak = [check.name for check in checked.weak(terms.min_confidence or 1.0)]
    return {MARK: checked.confidence if checked.confidence is not None else "unknown", "weak": weak}


def _read(said: Outcome, terms: Terms, checked: Validated) -> Verdict | str:
    """What a person said as a verdict, or why it cannot be used."""
    by = str(said.facts.get("by"))
    if said.result != "ok":
        return Verdict(checked, "rejected", None, "nobody decided on it in time")
    value = said.content
    if isinstance(value, dict) and len(value) == 1:
        if "reject" in value:
            return Verdict(checked, "rejected", by, str(value["reject"]) or "no reason given")
        if "edit" in value:
            edited = validate_value(value["edit"], terms)
            if edited.errors:
                return f"the edited answer does not fit: {'; '.join(edited.errors)}"
            return Verdict(replace(edited, confidence=checked.confidence), "edited", by)
    if isinstance(value, str) and value.strip().lower() == "approve":
        return Verdict(checked, "approved", by)
    return f"{str(value)[:200]!r} is none of the ways to decide"


def _record(ctx: Context, verdict: Verdict, said: Outcome) -> None:
    facts: dict[str, Json] = {"stage": "confidence", "verdict": verdict.word, "by": verdict.by}
    facts["request_id"] = said.facts.get("request_id")
    errors = [verdict.problem] if verdict.problem else []
    ctx.record("validation", None, what="review", ok=not errors, errors=errors, **facts)
