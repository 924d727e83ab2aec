"""A person's answer against the schema that a workflow gave with its question. Pure.

Knows neither the question nor who is asked.
"""

from __future__ import annotations

from retinue.runs.contracts import Json
from retinue.sessions.complaints import explain_answer
from retinue.sessions.schemas import Schema, TooMuchWork


def problem_of(schema: dict[str, Json], value: Json) -> str | None:
    """What is wrong with an answer: the field, its value and what the schema wants; None when it fits."""
    try:
        problems = Schema(schema).problems(value)
    except TooMuchWork as error:
        return f"the answer cannot be checked against the question's schema ({error}): give less"
    return explain_answer(problems) if problems else None
