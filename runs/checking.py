"""What a workflow returns, checked as an agent's answer is: schema, rules, confidence, a person where it is weak.

There is no model to send it back to: what is refused ends the run. A workflow that asks for none of it is left alone.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from retinue.runs import reviewing
from retinue.runs.context import Context
from retinue.runs.contracts import Json
from retinue.runs.definitions import Workflow
from retinue.runs.ending import Ended
from retinue.runs.errors import OutputRejected
from retinue.runs.outputs import Validated, validate_value


async def checked(ctx: Context, definition: Workflow, value: Any) -> Any:
    """The value, or what a person made of it. OutputRejected for what rules or a person refuse."""
    if not (definition.rules or definition.min_confidence is not None) or isinstance(value, Ended):
        return value
    found = validate_value(from_json(to_json(value)), definition.terms, ctx.checks)
    _record(ctx, found)
    if found.errors:
        raise OutputRejected(f"{definition.name} returned what its rules refuse: {'; '.join(found.errors)}")
    facts: dict[str, Json] = {"confidence": found.confidence}
    if reviewing.due(definition.terms, found):
        verdict = await reviewing.review(ctx, definition.name, definition.terms, found)
        if verdict.problem is not None:
            who = f"{verdict.by} rejected it: " if verdict.by else ""
            raise OutputRejected(f"the output of {definition.name} was refused: {who}{verdict.problem}")
        found, facts = verdict.answer, facts | {"reviewed": verdict.word, "reviewed_by": verdict.by}
    return Ended(found.value, facts=facts)


def _record(ctx: Context, found: Validated) -> None:
    content = {"warnings": list(found.warnings)} if found.warnings else None
    ctx.record("validation", content, what="output", ok=found.ok, errors=list(found.errors), **found.facts)
