"""Span ids and trace context, as pure functions: the engine and the trace tables compute the same ids.

Owns how a step's span id follows from its key and how W3C trace context is written. Knows no exporter.
"""

from __future__ import annotations

from hashlib import blake2b


def span_id_of(run_id: str, key: str) -> str:
    """The span id of a step: 16 hex digits, the same whenever and wherever it is computed."""
    return blake2b(f"{run_id}:{key}".encode()).hexdigest()[:16]


def traceparent(trace_id: str, span_id: str) -> str:
    """The W3C `traceparent` header, version 00, sampled: 32 and 16 hex digits in."""
    return f"00-{trace_id}-{span_id}-01"
