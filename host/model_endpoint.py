"""The model endpoint of a host: adopted functions reach the run's models over HTTP, as from any OpenAI server.

Owns the port (127.0.0.1, a free one, opened when the first function needs it), the tokens (one for each call of a
function, worth nothing when it has ended), and what an outcome is in HTTP. Every request becomes a step of the
token's run; nothing here calls a model.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from retinue.host.clock import new_token
from retinue.inference.openai_serving import NotSupported, completion, events, failure, models, read_request
from retinue.runs.contracts import ErrorInfo, Json
from retinue.runs.doors import Access, Keeper
from retinue.runs.effects.models import reply_of
from retinue.runs.errors import BudgetExhausted, InvalidInput, RetinueError, TransientError, UnknownName
from retinue.runs.identity import effect_key
from retinue.runs.journal import Outcome

_LOG = logging.getLogger("retinue.host")
_MOST_BYTES = 32 * 1024 * 1024
_LIMITED = frozenset({"rate_limited", "overloaded"})
_THEIR_FAULT = frozenset({"bad_request", "bad_parameters", "context_too_long", "request_too_large"})
"""Codes of failed model calls that another request may avoid."""


class ModelEndpoint:
    """Serves the adopted functions of one host. Belongs to one event loop."""

    def __init__(self) -> None:
        self._keepers: dict[str, Keeper] = {}
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._url = ""

    @asynccontextmanager
    async def open(self, keeper: Keeper) -> AsyncIterator[Access]:
        """Serve a keeper until the block is left; OSError when no port can be had."""
        if self._serving is None:
            self._start()
        token = new_token()
        self._keepers[token] = keeper
        try:
            yield Access(self._url, token)
        finally:
            del self._keepers[token]

    async def close(self) -> None:
        """Serve nobody any more; returns within a few seconds."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.gather(self._serving, return_exceptions=True)
        self._server = self._serving = None

    def _start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        routes = [
            Route("/v1/models", self._list_models, methods=["GET"]),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/{path:path}", _not_here, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def _list_models(self, request: Request) -> Response:
        keeper = self._find(request)
        return _stranger() if keeper is None else JSONResponse(models([keeper.model]))

    async def _complete(self, request: Request) -> Response:
        keeper = self._find(request)
        if keeper is None:
            return _stranger()
        try:
            asked = read_request(await _read(request))
            outcome = await keeper.complete(asked.request)
        except (NotSupported, ClientDisconnect, RetinueError) as error:
            return _trouble(error, keeper)
        if outcome.result != "ok":
            return _refusal(outcome)
        reply_id = f"chatcmpl-{effect_key(keeper.request.effect_scope, outcome.key)}"
        body = completion(reply_of(outcome), reply_id, outcome.at // 1_000_000_000)
        if asked.stream:
            return StreamingResponse(events(body, asked.usage), media_type="text/event-stream")
        return JSONResponse(body)

    def _find(self, request: Request) -> Keeper | None:
        """Whose token it is. All tokens are compared, each in constant time."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        found = None
        for token, keeper in self._keepers.items():
            if hmac.compare_digest(token.encode(), given):
                found = keeper
        return found


class _Server(uvicorn.Server):
    """A server that leaves signals to the process it lives in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _read(request: Request) -> Json:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise NotSupported("body", f"it is larger than {_MOST_BYTES} bytes; send less")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise NotSupported("body", f"it is not JSON: {error}") from None


async def _not_here(request: Request) -> Response:
    said = (
        f"there is no {request.method} {request.url.path} here, only POST /v1/chat/completions and GET /v1/models: "
        "have your framework speak Chat Completions"
    )
    return _error(404, "not_found", said)


def _stranger() -> Response:
    said = "the token is not that of an adopted function that runs now; pass `doors.api_key` as the API key"
    return _error(401, "invalid_api_key", said)


def _trouble(error: Exception, keeper: Keeper) -> Response:
    """A request that did not become a model call, or that the budget does not allow."""
    said = str(error)
    match error:
        case NotSupported():
            return _error(400, "unsupported", said, field=error.field)
        case ClientDisconnect():
            return _error(400, "unsupported", "the request was not sent to its end")
        case UnknownName():
            return _error(404, "model_not_found", f"{said} This run's model is {keeper.model!r}.")
        case InvalidInput():
            return _error(400, "bad_model", said)
        case BudgetExhausted():
            return _error(402, "budget_exhausted", said)
        case TransientError():
            return _error(429, error.code, said, after=1.0, again=True)
        case _:
            return _error(503, "stopped", said)


def _refusal(outcome: Outcome) -> Response:
    """A model call that did not go well: denied, limited, failed."""
    error = outcome.error or ErrorInfo(reason="model_failure", code=outcome.result, message=outcome.name)
    if outcome.result == "refused":
        return _error(403, "policy_denied", error.message)
    if error.code in _LIMITED:
        return _error(429, error.code, error.message, after=error.retry_after or 1.0)
    if error.code in _THEIR_FAULT:
        return _error(400, error.code, error.message)
    return _error(503 if error.retryable else 502, error.code, error.message)


def _error(
    status: int, code: str, message: str, *, field: str | None = None, after: float | None = None, again: bool = False
) -> Response:
    """An error as OpenAI's clients read it. The run has one owner of retries, so theirs are told not to: a request
    that was carried out is not worth sending again.
    """
    headers = {"x-should-retry": "true" if again else "false"}
    if after is not None:
        headers["retry-after"] = str(math.ceil(after))
    return JSONResponse(failure(_KINDS[status], code, message, field), status, headers)


_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "api_error",
}
