"""Spans to an OTLP endpoint: read from the spans table, sent in batches, at least once.

Owns the exporter and its own cursor. A slow or absent endpoint delays only the export: the tables are the
source, so nothing that is not sent is lost, and nothing here ever writes to them.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from retinue.runs.errors import ConfigError, StoreError
from retinue.traces.file import Row, TraceFile
from retinue.traces.otel import COLUMNS, readable, resource
from retinue.traces.threads import in_thread

CURSOR = "otlp.json"
PATH = "/v1/traces"


class ExportFailed(StoreError):
    """The endpoint did not take a batch of spans; they are sent again with the next step."""


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Where spans go; `content` also sends prompts, replies, arguments and results, redacted as there.

    `endpoint` is an OTLP/HTTP URL; without a path, /v1/traces is meant. `timeout` is in seconds for a batch.
    """

    endpoint: str
    headers: dict[str, str] = field(default_factory=dict)
    service: str = "retinue"
    content: bool = False
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Sent:
    """How far spans were taken by the endpoint: place of the newest one in the journal of one store."""

    endpoint: str = ""
    incarnation: str = ""
    seq: int = 0
    ordinal: int = -1
    span_id: str = ""


class Export:
    """Sends what the endpoint has not taken yet. ConfigError when the endpoint or the extra is unusable."""

    def __init__(self, folder: Path, settings: OtlpSettings) -> None:
        self._path = folder / CURSOR
        self._settings = settings
        self._exporter = _exporter(settings)
        self._resource = resource(settings.service)

    async def step(self, file: TraceFile, incarnation: str, limit: int, threads: Executor) -> int:
        """Send up to `limit` spans; returns how many were taken. Raises ExportFailed."""
        sent = await in_thread(threads, self._sent, incarnation)
        with file.reader() as reader:
            rows = await in_thread(threads, _after, reader, sent, limit, self._settings.content)
        if rows:
            await in_thread(threads, self._send, rows, sent)
        return len(rows)

    def close(self) -> None:
        """End the exporter; what was not sent is sent after the next start."""
        self._exporter.shutdown()

    def _send(self, rows: list[Row], sent: Sent) -> None:
        spans = [readable(row, self._resource) for row in rows]
        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ExportFailed(
                f"{self._settings.endpoint} did not take {len(spans)} spans; they are kept and sent again. "
                "Check that an OTLP/HTTP receiver listens there"
            )
        last = rows[-1]
        self._keep(Sent(sent.endpoint, sent.incarnation, last["seq"], last["ordinal"], last["span_id"]))

    def _sent(self, incarnation: str) -> Sent:
        """The cursor; from the beginning for another store or another endpoint, or when it cannot be read."""
        fresh = Sent(self._settings.endpoint, incarnation)
        try:
            found = Sent(**json.loads(self._path.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return fresh
        return found if (found.endpoint, found.incarnation) == (fresh.endpoint, incarnation) else fresh

    def _keep(self, sent: Sent) -> None:
        draft = self._path.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump({name: getattr(sent, name) for name in Sent.__dataclass_fields__}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def _after(reader: duckdb.DuckDBPyConnection, sent: Sent, limit: int, content: bool) -> list[Row]:
    columns = (
        "seq",
        "ordinal",
        "trace_id",
        "span_id",
        "parent_span_id",
        "name",
        "kind",
        "start_ns",
        "end_ns",
    )
    wanted = ", ".join(f"s.{name}" for name in (*columns, "status", "error_message", "cost_usd", *COLUMNS))
    said = ", m.messages, m.text, m.tool_calls, t.arguments::JSON AS arguments, t.value::JSON AS value"
    joined = "LEFT JOIN model_calls AS m ON m.seq = s.seq AND m.span_id = s.span_id "
    joined += "LEFT JOIN tool_calls AS t ON t.seq = s.seq AND t.span_id = s.span_id"
    result = reader.execute(
        f"SELECT {wanted}, s.attributes::JSON AS attributes{said if content else ''} FROM spans AS s "
        f"{joined if content else ''} "
        "WHERE s.seq >= $seq AND (s.seq, s.ordinal, s.span_id) > ($seq, $ordinal, $span) "
        "ORDER BY s.seq, s.ordinal, s.span_id LIMIT $limit",
        {"seq": sent.seq, "ordinal": sent.ordinal, "span": sent.span_id, "limit": limit},
    )
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _exporter(settings: OtlpSettings) -> SpanExporter:
    parts = urlsplit(settings.endpoint)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigError(f"otlp: {settings.endpoint!r} is no http or https URL; give one such as http://host:4318")
    endpoint = settings.endpoint if parts.path.strip("/") else settings.endpoint.rstrip("/") + PATH
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"otlp: {settings.endpoint} needs the OTLP exporter, which is not installed ({error}); "
            "install retinue[otlp], or leave otlp out"
        ) from error
    return OTLPSpanExporter(endpoint=endpoint, headers=settings.headers, timeout=settings.timeout)
