"""A model behind HTTP: one attempt at one endpoint, whatever protocol it speaks.

Owns the order of a call (key, payload, exchange, reading, price) and what an endpoint was found to accept.
Knows no wire format (the dialects do), keeps no conversation and never retries; a second request goes out
only when the endpoint refuses the form in which structured output was asked for, and only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

from pydantic_core import from_json

from retinue.inference.dialect import Dialect, Draft, Fold, NotProtocol, Reported
from retinue.inference.faults import cut, garbage, refusal, stream_refusal
from retinue.inference.http import Answer, Call, Http
from retinue.inference.prices import Rates, Spent, estimate_request, estimate_text
from retinue.inference.sse import Event
from retinue.runs.contracts import Json, Usage
from retinue.runs.errors import PermanentModelError, TransientModelError
from retinue.runs.messages import ModelProfile, ModelReply, ModelRequest, OnDelta

_REFUSES = frozenset({400, 422})
_REFUSES_IF_NAMED = frozenset({500, 501})
"""Some servers report a field that they cannot validate as their own failure, but they name the field."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served. `rates` is None when its price is unknown; `key_variable` names the
    environment variable that holds its key, None when no key is sent."""

    provider: str
    base_url: str
    model: str
    rates: Rates | None
    free: bool = False
    key_variable: str | None = None


@dataclass
class _Attempt:
    """One call in progress."""

    request: ModelRequest
    on_delta: OnDelta | None
    fold: Fold | None = None
    first_piece: float | None = None
    started: float = field(default_factory=perf_counter)

    def take(self, event: Event) -> bool:
        """An event of the stream; True after its last."""
        if self.fold is None:
            return True
        self.pass_on(self.fold.feed(event))
        return self.fold.done

    def pass_on(self, piece: str) -> None:
        """A piece of text to whoever listens."""
        if piece and self.on_delta is not None:
            if self.first_piece is None:
                self.first_piece = self.elapsed
            self.on_delta(piece)

    @property
    def elapsed(self) -> float:
        """Seconds since the call began."""
        return perf_counter() - self.started


class RemoteModel:
    """A ModelPort over one endpoint and one dialect. Closing it closes nothing: connections are shared."""

    def __init__(self, endpoint: Endpoint, dialect: Dialect, http: Http, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._http = http
        self._environ = environ
        self._native = True
        self.url = endpoint.base_url.rstrip("/") + dialect.path

    def profile(self, request: ModelRequest) -> ModelProfile:
        """The estimate of the input and the price of it with `max_tokens` produced."""
        tokens = estimate_request(request)
        rates = self._endpoint.rates
        return ModelProfile(
            provider=self._endpoint.provider,
            name=self._endpoint.model,
            free=self._endpoint.free,
            max_micros=None if rates is None else rates.micros(Spent(tokens, request.max_tokens)),
            input_tokens=tokens,
            endpoint=self._endpoint.base_url,
        )

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One call, streamed when `on_delta` is given."""
        attempt, native = _Attempt(request, on_delta), self._native
        try:
            answer = await self._send(attempt, native)
            if native and not answer.ok and self._refuses_form(answer, request):
                about_schema = b"nvalid schema" in answer.body or b"invalid_json_schema" in answer.body
                native = False
                answer = await self._send(attempt, native)
                self._native = about_schema or not answer.ok
            if not answer.ok:
                raise refusal(answer, self.url, self.find_key())
            return self._reply(attempt, answer, native)
        except NotProtocol as error:
            raise garbage(self.url, str(error)) from None
        except Reported as error:
            raise stream_refusal(error.error, self.url, self.find_key()) from None

    async def close(self) -> None:
        """Nothing of its own to close."""

    def find_key(self) -> str | None:
        """The key, read anew for each call; a missing or unusable one is PermanentModelError."""
        variable = self._endpoint.key_variable
        if variable is None:
            return None
        key = self._environ.get(variable, "").strip()
        if not key:
            raise PermanentModelError(
                f"model {self._endpoint.model!r} of {self._endpoint.provider} needs a key: set the "
                f"environment variable {variable}",
                code="missing_key",
            )
        if not key.isascii() or not key.isprintable():
            raise PermanentModelError(
                f"the environment variable {variable} holds characters that no key has; set it again",
                code="bad_key",
            )
        return key

    async def _send(self, attempt: _Attempt, native: bool) -> Answer:
        request = attempt.request
        left = request.timeout - attempt.elapsed
        if left <= 0:
            raise TransientModelError(
                f"no reply from {self.url} within {request.timeout:g} s: the time went with asking which "
                "form of structured output it accepts; try again",
                code="timeout",
            )
        headers = self._dialect.headers(self.find_key())
        if request.traceparent is not None:
            headers["traceparent"] = request.traceparent
        payload = self._dialect.payload(request, self._endpoint.model, native)
        if attempt.on_delta is None:
            return await self._http.post(Call(self.url, headers, payload, left))
        attempt.fold = self._dialect.fold(request, native)
        payload.update(self._dialect.stream_fields)
        return await self._http.stream(Call(self.url, headers, payload, left), attempt.take)

    def _refuses_form(self, answer: Answer, request: ModelRequest) -> bool:
        if request.output_schema is None:
            return False
        named = any(marker in answer.body for marker in self._dialect.markers)
        if answer.status in _REFUSES_IF_NAMED:
            return named
        unclear = refusal(answer, self.url).code == "bad_request"
        return answer.status in _REFUSES and (named or unclear)

    def _reply(self, attempt: _Attempt, answer: Answer, native: bool) -> ModelReply:
        body = self._read_body(attempt, answer)
        draft = self._dialect.read(body, attempt.request, native)
        if attempt.fold is not None and answer.body:  # asked to stream, it answered at once
            attempt.pass_on(draft.text)
        first = attempt.first_piece
        return ModelReply(
            text=draft.text,
            tool_calls=draft.tool_calls,
            finish_reason=draft.finish_reason,
            usage=self._usage(draft, attempt.request),
            model=draft.model or self._endpoint.model,
            provider=self._endpoint.provider,
            response_id=draft.response_id,
            raw=body,
            latency_ms=attempt.elapsed * 1000,
            first_token_ms=None if first is None else first * 1000,
            priced=self._endpoint.rates is not None,
        )

    def _read_body(self, attempt: _Attempt, answer: Answer) -> Json:
        kind = answer.media_type
        if attempt.fold is not None and kind == "text/event-stream":
            body = attempt.fold.body()
            if body is None:
                raise cut(self.url)
            return body
        if kind != "application/json" and not kind.endswith("+json"):
            raise NotProtocol(f"the content type is {kind or 'missing'} instead of application/json")
        try:
            return from_json(answer.body)
        except ValueError as error:
            raise NotProtocol(f"the body is no JSON: {error}") from None

    def _usage(self, draft: Draft, request: ModelRequest) -> Usage:
        spent = draft.spent
        if spent is None or spent.input_tokens == 0:  # nobody reads nothing: not reported
            written = estimate_text(draft.text) + sum(estimate_text(call.raw) for call in draft.tool_calls)
            spent = Spent(estimate_request(request), written)
        rates = self._endpoint.rates
        return Usage(
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            micros=0 if rates is None else rates.micros(spent),
        )
