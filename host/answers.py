"""An output as an answer: the text, its citations, its confidence, the rest. And the row of a batch made of it.

Pure. Knows no agent; a structured output is read by the names of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from retinue.runs.context import typed
from retinue.runs.contracts import ERASED, MICROS, Branch, Json
from retinue.runs.control import JobRow
from retinue.runs.definitions import Definition
from retinue.runs.errors import InvalidInput

_ERASED = "(content erased)"


@dataclass(frozen=True, slots=True)
class Answer:
    """`details` are the fields of a structured output that are none of the other three."""

    answer: Json
    citations: list[Json] = field(default_factory=list)
    confidence: float | None = None
    details: dict[str, Json] = field(default_factory=dict)


def read_answer(value: Json, facts: dict[str, Json]) -> Answer:
    """An output as an answer; one without a field `answer` is the answer itself.

    The confidence is what checks found (`facts`), else what the output says of itself.
    """
    checked = facts.get("confidence")
    if facts.get(ERASED):
        return Answer(_ERASED, confidence=checked)
    if not isinstance(value, dict) or "answer" not in value:
        return Answer(value, confidence=checked)
    cited = value.get("citations")
    return Answer(
        answer=value["answer"],
        citations=cited if isinstance(cited, list) else [],
        confidence=checked if checked is not None else value.get("confidence"),
        details={name: part for name, part in value.items() if name not in {"answer", "citations", "confidence"}},
    )


def dollars(micros: int) -> float:
    """Micro-dollars as a JSON number of dollars."""
    return round(micros / MICROS, 6)


def row_of(row: JobRow) -> dict[str, Json]:
    """One line of a batch's output; docs/cli.md describes it."""
    branch = row.branch
    answer = read_answer(branch.value, branch.facts)
    line: dict[str, Json] = {
        "id": row.input_id,
        "answer": answer.answer,
        "citations": answer.citations,
        "confidence": answer.confidence,
        "status": branch.status.value,
        "stop_reason": branch.reason.value,
        "cost_usd": dollars(branch.usage.micros),
        "run_id": branch.run_id,
    }
    if answer.details:
        line["details"] = answer.details
    if branch.error is not None:
        line["error"] = {"code": branch.error.code, "message": branch.error.message}
    return line


def output_of(definition: Definition, branch: Branch) -> Any:
    """What a run that completed has returned, as its declared type. InvalidInput when that was erased."""
    if branch.facts.get(ERASED):
        raise InvalidInput(f"run {branch.run_id}: what it has returned was erased with its tenant's key")
    return typed(definition, branch.value)


def result_of(branch: Branch) -> dict[str, Json]:
    """A run's result as the JSON of `run` and `wait`."""
    answer = read_answer(branch.value, branch.facts)
    return {
        "run_id": branch.run_id,
        "status": branch.status.value,
        "stop_reason": branch.reason.value,
        "output": branch.value,
        "confidence": answer.confidence,
        "error": branch.error.model_dump(mode="json") if branch.error else None,
        "usage": branch.usage.model_dump(mode="json"),
        "cost_usd": dollars(branch.usage.micros),
        **({ERASED: True} if branch.facts.get(ERASED) else {}),
    }
