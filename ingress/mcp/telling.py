"""How runs, requests and tables read to an agent: plain JSON, bounded in size. Pure.

Knows no protocol and no store.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pydantic import PydanticUserError, TypeAdapter

from retinue.host.answers import dollars, result_of
from retinue.ingress.answering import schema_of
from retinue.ingress.render import moment
from retinue.runs.contracts import Branch, Json, PendingRequest, RunRecord
from retinue.runs.definitions import Definition, Workflow, type_of
from retinue.runs.errors import InvalidInput
from retinue.traces.formats import as_json
from retinue.traces.query import TRUNCATED

MOST = 200_000
"""Characters of JSON in one answer."""
_ABOUT = 500


def iso(nanoseconds: int) -> str:
    """Unix nanoseconds as ISO 8601 in UTC, to the millisecond."""
    at = datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told_run(record: RunRecord) -> dict[str, Json]:
    """Where a run stands."""
    return {
        "run_id": record.run_id,
        "target": record.target,
        "kind": record.kind,
        "status": record.status.value,
        "stop_reason": record.reason.value if record.reason else None,
        "held": record.held and not record.status.terminal,
        "canceled_by": record.cancel,
        "parent_run_id": record.parent_run_id,
        "root_run_id": record.root_run_id,
        "input_id": record.input_id,
        "job_id": record.job_id,
        "created_at": moment(record.created_at),
        "started_at": moment(record.started_at) or None,
        "finished_at": moment(record.finished_at) or None,
        "steps": record.usage.steps,
        "calls": record.usage.hops,
        "cost_usd": dollars(record.usage.micros),
    }


def told_result(branch: Branch) -> dict[str, Json]:
    """How a run ended. An output that is too long is given as its first characters, and `output_cut` says so."""
    told = result_of(branch)
    text = json.dumps(told["output"], ensure_ascii=False)
    if len(text) > MOST:
        told["output"] = text[:MOST]
        told["output_cut"] = f"the first {MOST:,} of {len(text):,} characters of its JSON; `retinue wait` shows all"
    return told


def told_request(request: PendingRequest, refused: str | None) -> dict[str, Json]:
    """What a run asks, and (`refused`) why whoever is connected cannot answer it."""
    own = {"requester", "schema", "approver"}
    return {
        "request_id": request.request_id,
        "run_id": request.run_id,
        "root_run_id": request.root_run_id,
        "kind": "doubt" if "doubt" in request.facts else request.kind,
        "prompt": request.prompt,
        "facts": {name: value for name, value in request.facts.items() if name not in own},
        "schema": schema_of(request),
        "url": request.asked.get("url"),
        "requester": request.facts.get("requester"),
        "assignee": request.assignee,
        "created_at": moment(request.created_at),
        "expires_at": moment(request.expires_at) or None,
        "for_you": refused is None,
        "why_not": refused,
    }


def told_target(definition: Definition) -> dict[str, Json]:
    """What can be submitted: what it takes and gives. An agent's instructions are its own affair and not told."""
    if isinstance(definition, Workflow):
        about = " ".join((definition.function.__doc__ or "").split())[:_ABOUT]
    else:
        about = f"an agent with the tools {', '.join(definition.tool_names)}" if definition.tools else "an agent"
    return {
        "name": definition.name,
        "kind": definition.kind,
        "about": about,
        "input_schema": _schema(definition.input),
        "output_schema": _schema(definition.output),
    }


def _schema(hint: Any) -> Json:
    """The JSON Schema of a declared type; None for one that is not declared or has none."""
    try:
        return None if hint is None else TypeAdapter(type_of(hint)).json_schema()
    except (PydanticUserError, NameError):
        return None


def told_table(table: pa.Table) -> dict[str, Json]:
    """An answer of the trace tables: as many rows as fit. InvalidInput when not even one does."""
    whole: list[Json] = json.loads(as_json(table))
    fitting: list[Json] = []
    size = 0
    for row in whole:
        size += len(json.dumps(row, ensure_ascii=False))
        if size > MOST:
            break
        fitting.append(row)
    if whole and not fitting:
        raise InvalidInput(f"one row of the answer is longer than {MOST:,} characters: select fewer columns, or parts")
    cut = TRUNCATED in (table.schema.metadata or {}) or len(fitting) < len(whole)
    return {"columns": table.column_names, "rows": fitting, "truncated": cut}
