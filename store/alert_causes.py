"""What the store says of things that somebody may have to be told of: short reads, each bounded and by an index.

Knows no rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from retinue.runs.alerts import MOST, Alert, Asked, Cursor, Failure, Job, Look, OnEvent
from retinue.runs.breakers import Breaker
from retinue.runs.journal import ENTRIES, Parked
from retinue.store.accounts import exhausted
from retinue.store.engine import Connection
from retinue.store.reading import settled
from retinue.store.rollouts import stopped
from retinue.store.rows import many
from retinue.store.statements import sql

_PAGE = 1_000
_WAITS = 5


def look(connection: Connection, standing: tuple[Alert, ...], cursor: Cursor, before: int) -> Look:
    """One look for a round of the rules: what is new since the cursor, what lasts, and what became of what stands."""
    until = {"settled": settled(connection)}
    failures = many(connection, sql("alert_failures"), {"after": cursor.failed, "limit": _PAGE} | until)
    refused = many(connection, sql("alert_refused"), {"after": cursor.refused, "limit": _PAGE} | until)
    failed = tuple(Failure(*row) for _, *row in failures)
    by_job = {run_id: at for _, run_id, at in reversed(refused)}
    jobs = {each.job_id for each in failed if each.job_id} | set(by_job) | _named(standing, "job")
    most = MOST + len(standing)
    return Look(
        standing=standing,
        asked=_asked(connection, before, most),
        on_event=_on_event(connection, before, most),
        breakers=_breakers(connection, most),
        failures=failed,
        refused=by_job,
        jobs=_jobs(connection, jobs),
        cursor=Cursor(
            failures[-1][0] if failures else cursor.failed,
            refused[-1][0] if refused else cursor.refused,
        ),
        more=len(failures) == _PAGE or len(refused) == _PAGE,
        open_requests=_still(
            connection, "request_id FROM requests WHERE status = 'open' AND request_id", _named(standing, "request_id")
        ),
        still_on_event=_still(
            connection,
            "run_id FROM runs WHERE status = 'waiting' AND reason = 'event' AND run_id",
            _named(standing, "run"),
        ),
        exhausted=exhausted(connection, most),
        stopped=stopped(connection, most),
        still_failed=_still(
            connection, "run_id FROM runs WHERE status = 'failed' AND run_id", _named(standing, "runs")
        ),
    )


def _asked(connection: Connection, before: int, most: int) -> tuple[Asked, ...]:
    """Open requests: the oldest that are old, those passed on, and those about a doubt; each at most once."""
    found: dict[str, Asked] = {}
    for index, where, order in (
        ("requests_since", "q.created_at <= :before", "q.created_at"),
        ("requests_escalated", "q.escalated_at IS NOT NULL", "q.escalated_at"),
        ("requests_doubt", "json_type(q.facts, '$.doubt') IS NOT NULL", "q.num"),
    ):
        query = sql("alert_requests").replace("requests q", f"requests q INDEXED BY {index}")
        values = {"before": before, "limit": most}
        for row in connection.execute(f"{query} AND {where} ORDER BY {order} LIMIT :limit", values):
            found[row[0]] = Asked(*row)
    return tuple(found.values())


def _on_event(connection: Connection, before: int, most: int) -> tuple[OnEvent, ...]:
    rows = many(connection, sql("alert_events"), {"before": before, "limit": most})
    return tuple(
        OnEvent(run_id, root, tenant_id, target, since, _waits(facts))
        for run_id, root, tenant_id, target, since, facts in rows
    )


def _waits(facts: bytes) -> tuple[str, ...]:
    last = ENTRIES.validate_json(facts)[-1]
    return last.waits[:_WAITS] if isinstance(last, Parked) else ()


def _breakers(connection: Connection, most: int) -> tuple[Breaker, ...]:
    query = (
        "SELECT name, state, failures, since, until, openings, reason FROM breakers WHERE state != 'closed'"
        " ORDER BY name LIMIT ?"
    )
    return tuple(Breaker(*row) for row in many(connection, query, (most,)))


def _jobs(connection: Connection, job_ids: Iterable[str]) -> dict[str, Job]:
    rows = many(connection, sql("alert_jobs"), (json.dumps(sorted(job_ids)),))
    return {run_id: Job(tenant_id, failed, refused) for run_id, tenant_id, failed, refused in rows}


def _named(standing: Iterable[Alert], name: str) -> set[str]:
    """What standing alerts name under a fact: one id, or a list of them."""
    values = [alert.facts[name] for alert in standing if name in alert.facts]
    return {each for value in values for each in (value if isinstance(value, list) else [value])}


def _still(connection: Connection, what: str, ids: set[str]) -> frozenset[str]:
    """Which of these ids a query (all but its values) finds."""
    rows = many(connection, f"SELECT {what} IN (SELECT value FROM json_each(?))", (json.dumps(sorted(ids)),))
    return frozenset(row[0] for row in rows)
