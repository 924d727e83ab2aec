"""OTLP export: a receiver on the loopback gets the very spans of the table, at least once, whatever happens to it."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.unit.traces.books import Book
from tests.unit.traces.conftest import Open, contents, drain
from tests.unit.traces.journeys import answering, tale

from retinue.runs.errors import ConfigError
from retinue.traces.export import Export, ExportFailed, OtlpSettings
from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces


class Receiver(ThreadingHTTPServer):
    """An OTLP/HTTP receiver; answers with `status`, keeps what it took in `spans` and the headers in `heard`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.spans: list[Span] = []
        self.resources: list[Any] = []
        self.heard: list[dict[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.heard.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        if self.server.status == 200:
            sent = ExportTraceServiceRequest.FromString(body)
            for group in sent.resource_spans:
                self.server.resources.append(group.resource)
                self.server.spans += [span for scope in group.scope_spans for span in scope.spans]
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def send_all(traces: Traces, limit: int = 64) -> int:
    total = 0
    while sent := await traces.export(limit):
        total += sent
    return total


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in span.attributes}


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(part) for part in value.array_value.values]
    return getattr(value, kind)


@pytest.mark.promise("I5")
async def test_the_endpoint_gets_the_spans_of_the_table(open_traces: Open, receiver: Receiver) -> None:
    traces = await open_traces(tale(10), otlp=OtlpSettings(receiver.endpoint, headers={"x-key": "k"}))
    await drain(traces)
    rows = (await traces.query("SELECT * FROM spans")).to_pylist()
    assert await send_all(traces) == len(rows) == len(receiver.spans)
    sent = {span.span_id.hex(): span for span in receiver.spans}
    assert set(sent) == {row["span_id"] for row in rows}
    codes = {"ok": 1, "error": 2, "unset": 0}
    for row in rows:
        span = sent[row["span_id"]]
        said = attributes(span)
        assert span.trace_id.hex() == row["trace_id"]
        assert span.parent_span_id.hex() == (row["parent_span_id"] or "")
        assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == (
            row["name"],
            row["start_ns"],
            row["end_ns"],
        )
        assert span.status.code == codes[row["status"]]
        assert said["gen_ai.operation.name"] == row["operation"]
        assert (said["retinue.run.id"], said["retinue.tenant.id"]) == (row["run_id"], row["tenant_id"])
        for name, value in json.loads(row["attributes"]).items():
            assert said[name] == value
    assert {(line["path"], line["x-key"]) for line in receiver.heard} == {("/v1/traces", "k")}
    assert {pair.key: pair.value.string_value for pair in receiver.resources[0].attributes}["service.name"] == "retinue"


async def test_the_offline_model_says_what_it_is(open_traces: Open, receiver: Receiver) -> None:
    book = Book()
    for _ in answering(book, "run-0", 1):
        pass
    traces = await open_traces(book, otlp=OtlpSettings(receiver.endpoint))
    await drain(traces)
    await send_all(traces)
    said = attributes(next(span for span in receiver.spans if span.name.startswith("chat")))
    assert said["gen_ai.provider.name"] == "retinue"
    assert said["gen_ai.request.model"] == "builtin:extractive"
    assert said["gen_ai.response.model"] == "extractive-1"
    assert said["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (120, 30)
    assert (said["gen_ai.request.temperature"], said["gen_ai.request.seed"]) == (0.0, 7)
    assert said["gen_ai.response.time_to_first_chunk"] == 0.002
    assert not [name for name in said if "messages" in name], "content is sent only when asked for"


async def test_content_is_sent_when_asked_for_and_redacted(open_traces: Open, receiver: Receiver) -> None:
    book = Book()
    for _ in answering(book, "run-0", 1):
        pass
    settings = OtlpSettings(receiver.endpoint, content=True)
    traces = await open_traces(book, otlp=settings, redactor=Redactor(["Quote your evidence"]))
    await drain(traces)
    await send_all(traces)
    chats = [attributes(span) for span in receiver.spans if span.name.startswith("chat")]
    first = json.loads(chats[0]["gen_ai.input.messages"])
    assert first[0] == {"role": "system", "parts": [{"type": "text", "content": "[redacted]."}]}
    assert json.loads(chats[0]["gen_ai.output.messages"])[0]["parts"][0]["name"] == "search"
    tool = next(attributes(span) for span in receiver.spans if span.name == "execute_tool pricing_tool")
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"amount": 12_001, "currency": "EUR"}
    assert json.loads(tool["gen_ai.tool.call.result"]) == {"price": "1.5"}


@pytest.mark.parametrize("status", [400, 503])
async def test_what_the_endpoint_refuses_is_sent_again_and_the_tables_do_not_care(
    open_traces: Open, receiver: Receiver, status: int
) -> None:
    book = tale(6)
    traces = await open_traces(book, otlp=OtlpSettings(receiver.endpoint, timeout=0.3))
    await drain(traces)
    before = await contents(traces)
    assert await traces.export(10) == 10
    receiver.status = status
    with pytest.raises(ExportFailed, match="did not take 10 spans; they are kept"):
        await traces.export(10)
    assert await contents(traces) == before
    receiver.status = 200
    await send_all(traces)
    ids = [span.span_id.hex() for span in receiver.spans]
    assert sorted(ids) == sorted(row["span_id"] for row in before["spans"])


async def test_after_a_restart_it_goes_on_and_after_a_rebuild_it_does_not_begin_again(
    tmp_path: Path, open_traces: Open, receiver: Receiver
) -> None:
    book = tale(6)
    traces = await open_traces(book, otlp=OtlpSettings(receiver.endpoint))
    await drain(traces)
    assert await traces.export(7) == 7
    await traces.close()
    (tmp_path / "data" / "traces.duckdb").unlink()
    traces = await open_traces(book, otlp=OtlpSettings(receiver.endpoint))
    await drain(traces)
    await send_all(traces)
    ids = [span.span_id for span in receiver.spans]
    assert len(ids) == len(set(ids)) == len((await traces.query("FROM spans")).to_pylist())


async def test_another_endpoint_or_store_or_a_broken_cursor_begins_at_the_beginning(
    tmp_path: Path, open_traces: Open, receiver: Receiver
) -> None:
    book = tale(3)
    for settings, spoil in [
        (OtlpSettings(receiver.endpoint), False),
        (OtlpSettings(receiver.endpoint + "/v1/traces"), False),
        (OtlpSettings(receiver.endpoint + "/v1/traces"), True),
    ]:
        if spoil:
            (tmp_path / "data" / "otlp.json").write_text("{half")
        receiver.spans.clear()
        traces = await open_traces(book, otlp=settings)
        await drain(traces)
        assert await send_all(traces) == len(receiver.spans) == (await traces.query("FROM spans")).num_rows
        await traces.close()


async def test_without_an_endpoint_nothing_is_sent(open_traces: Open) -> None:
    traces = await open_traces(tale(2))
    await drain(traces)
    assert await traces.export() == 0


async def test_without_a_receiver_the_export_fails_within_its_timeout(open_traces: Open) -> None:
    with Receiver() as gone:
        endpoint = gone.endpoint
    traces = await open_traces(tale(2), otlp=OtlpSettings(endpoint, timeout=0.3))
    await drain(traces)
    with pytest.raises(ExportFailed, match="Check that an OTLP/HTTP receiver listens there"):
        await traces.export()


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://host:4317", "http://", ""])
def test_an_endpoint_that_is_no_url_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is no http or https URL"):
        Export(tmp_path, OtlpSettings(endpoint))


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"install retinue\[otlp\]"):
        Export(tmp_path, OtlpSettings("http://127.0.0.1:1"))
