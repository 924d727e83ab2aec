"""A model endpoint on the loopback: real HTTP/1.1, three protocols, and faults on demand.

`async with ModelServer(plans) as server` serves on the running loop; `with serve_in_thread(plans) as server`
serves from a thread, for tests that start other processes. Every request is checked as its provider would,
and kept in `server.requests`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Any

from tests.doubles import model_wire as wire
from tests.doubles.model_wire import Plan

Json = Any
Planner = Callable[["Received"], Plan]
EVERYTHING = frozenset({"json_schema", "json_object"})

_ROUTES: dict[str, tuple[Callable[..., None], Callable[..., Json], Callable[..., Iterator[str]]]] = {
    "/v1/chat/completions": (wire.check_chat, wire.chat_body, wire.chat_events),
    "/v1/responses": (wire.check_responses, wire.responses_body, wire.responses_events),
    "/v1/messages": (wire.check_anthropic, wire.anthropic_body, wire.anthropic_events),
}


@dataclass(frozen=True)
class Received:
    """One request as it came. Header names are lower case."""

    path: str
    headers: dict[str, str]
    body: Json


@dataclass
class ModelServer:
    """Plans are used in turn, the last one for ever; or a function decides for each request.

    `accepts` are the forms of structured output it knows, `refusal` the status for those it does not; `key`
    is demanded when it is set. `connections` counts those that were opened. Port 0 is any that is free.
    """

    plans: Sequence[Plan] | Planner = (Plan(text="hello"),)
    accepts: frozenset[str] = EVERYTHING
    refusal: int = 400
    key: str | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    host: str = "127.0.0.1"
    port: int = 0

    async def __aenter__(self) -> ModelServer:
        self._tasks: set[asyncio.Task[None]] = set()
        self.first_request = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.url = f"http://{self.host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    continue
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        received = await _receive(reader)
        self.requests.append(received)
        self.first_request.set()
        problem = self._refuse(received)
        if problem is not None:
            status, body = problem
            writer.write(_response(status, json.dumps(body).encode()))
            await writer.drain()
            return True
        plan = self._plan(received)
        return await _play(writer, received, plan)

    def _plan(self, received: Received) -> Plan:
        if callable(self.plans):
            return self.plans(received)
        return self.plans[min(len(self.requests), len(self.plans)) - 1]

    def _refuse(self, received: Received) -> tuple[int, Json] | None:
        if received.path not in _ROUTES:
            return 404, _error("not_found_error", f"no route {received.path}")
        given = received.headers.get("authorization", "").removeprefix("Bearer ")
        if received.path == "/v1/messages":
            given = received.headers.get("x-api-key", "")
            if "anthropic-version" not in received.headers:
                return 400, _error("invalid_request_error", "anthropic-version: header is required")
        if self.key is not None and given != self.key:
            return 401, _error("authentication_error", f"Incorrect API key provided: {given}")
        try:
            _ROUTES[received.path][0](received.body, self.accepts)
        except wire.Refused as refused:
            return self.refusal, _error("invalid_request_error", str(refused))
        return None


@contextmanager
def serve_in_thread(plans: Sequence[Plan] | Planner, **settings: Any) -> Iterator[ModelServer]:
    """A server for tests that do not run a loop, or that start other processes."""
    server, loop = ModelServer(plans, **settings), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split(" ")[1], headers, json.loads(body) if body else None)


async def _play(writer: asyncio.StreamWriter, received: Received, plan: Plan) -> bool:
    """Reply as planned; False when the connection must be closed."""
    assert plan.fault is None or plan.fault in wire.FAULTS, plan.fault
    _, body_of, events_of = _ROUTES[received.path]
    model = received.body["model"]
    if plan.fault == "slow":
        await asyncio.sleep(plan.delay)
    if plan.fault == "status":
        error = _error("api_error", "as planned") if plan.error is None else plan.error
        writer.write(_response(plan.status, json.dumps(error).encode(), plan.headers))
        await writer.drain()
        return True
    if received.body.get("stream"):
        return await _stream(writer, plan, events_of(plan, model))
    body = {
        "garbage": b"{not json",
        "html": b"<html>proxy</html>",
        "wrong_shape": b'{"hello": ["world"]}',
    }.get(plan.fault or "", json.dumps(body_of(plan, model), ensure_ascii=False).encode())
    return await _send(writer, plan, body)


async def _send(writer: asyncio.StreamWriter, plan: Plan, body: bytes) -> bool:
    kind = "text/html" if plan.fault == "html" else "application/json; charset=utf-8"
    if plan.fault == "cut":
        writer.write(_response(200, body)[:-5])
        await writer.drain()
        return False
    if plan.fault not in ("drip", "huge"):
        writer.write(_response(200, body, plan.headers, kind))
        await writer.drain()
        return True
    writer.write(_head(200, (("content-type", kind), ("transfer-encoding", "chunked"))))
    async for piece in _endless(plan):
        await _chunk(writer, piece)
    return False


async def _stream(writer: asyncio.StreamWriter, plan: Plan, events: Iterator[str]) -> bool:
    kind = "text/html" if plan.fault == "html" else "text/event-stream; charset=utf-8"
    writer.write(_head(200, (("content-type", kind), ("transfer-encoding", "chunked"), *plan.headers)))
    if plan.fault in ("drip", "huge"):
        async for piece in _endless(plan):
            await _chunk(writer, piece)
        return False
    whole = list(events)
    if plan.fault not in (None, "slow"):
        whole = whole[: max(1, len(whole) // 2)]
    if plan.fault == "stream_error":
        whole.append(f"event: error\ndata: {json.dumps(plan.error)}\n\n")
    if plan.fault in ("stream_garbage", "garbage", "wrong_shape"):
        whole.append("data: {not json\n\n" if plan.fault != "wrong_shape" else 'data: ["no"]\n\n')
    for event in whole:
        await _chunk(writer, event.encode())
    if plan.fault == "cut":
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _endless(plan: Plan) -> AsyncIterator[bytes]:
    """Bytes without end: one at a time, or a lot."""
    while True:
        yield b" " if plan.fault == "drip" else b" " * 65_536
        await asyncio.sleep(plan.delay if plan.fault == "drip" else 0)


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def _response(
    status: int,
    body: bytes,
    headers: tuple[tuple[str, str], ...] = (),
    kind: str = "application/json; charset=utf-8",
) -> bytes:
    known = (("content-type", kind), ("content-length", str(len(body))), *headers)
    return _head(status, known) + body


def _head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {status} Planned", f"date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _error(kind: str, message: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}}
