"""What a refusal means: status, headers and body of an answer turned into a typed error.

Owns the table from HTTP status and provider error type to transient or permanent, the reading of
Retry-After, and the cleaning of texts that may echo a key. Does no I/O.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from retinue.inference.http import Answer
from retinue.runs.contracts import Json
from retinue.runs.errors import PermanentModelError, TransientModelError

ModelFault = TransientModelError | PermanentModelError

EXCERPT = 300
"""Characters of a server's own words that an error message repeats."""

_TRANSIENT = {408: "timeout", 409: "conflict", 425: "too_early", 429: "rate_limited", 529: "overloaded"}
_PERMANENT = {
    400: "bad_request",
    401: "unauthorized",
    402: "quota_exhausted",
    403: "forbidden",
    404: "not_found",
    413: "request_too_large",
    422: "bad_request",
}
_TRANSIENT_TYPES = {
    "rate_limit_error": "rate_limited",
    "rate_limit_exceeded": "rate_limited",
    "overloaded_error": "overloaded",
    "api_error": "server_error",
    "server_error": "server_error",
    "internal_server_error": "server_error",
    "timeout_error": "timeout",
    "vector_store_timeout": "timeout",
}
_PERMANENT_TYPES = {
    "insufficient_quota": "quota_exhausted",
    "billing_error": "quota_exhausted",
    "context_length_exceeded": "context_too_long",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "authentication_error": "unauthorized",
    "invalid_api_key": "unauthorized",
    "permission_error": "forbidden",
    "request_too_large": "request_too_large",
}
_REMEDIES = {
    "bad_request": "the request does not fit this endpoint; see its words",
    "conflict": "try again later",
    "context_too_long": "give the model less to read or use one with a longer context",
    "forbidden": "this key may not use this model",
    "not_found": "check the model's name and the address",
    "overloaded": "the endpoint has too much to do; try again later",
    "quota_exhausted": "the account has no credit left",
    "rate_limited": "the endpoint asks for a pause",
    "redirected": "use the address that it names",
    "request_too_large": "give the model less to read",
    "server_error": "the endpoint failed; try again later",
    "timeout": "try again later",
    "too_early": "try again later",
    "unauthorized": "check the key",
}


def refusal(answer: Answer, url: str, secret: str | None = None) -> ModelFault:
    """The error that an answer with a status outside 2xx stands for; `secret` is never repeated."""
    kind, words = _described(answer.body)
    code, transient = _judge(answer.status, kind)
    message = f"{url} refused with HTTP {answer.status}: {_cleaned(words, secret)} ({_REMEDIES.get(code, code)})"
    if transient:
        return TransientModelError(message, code=code, retry_after=retry_after(answer.headers))
    return PermanentModelError(message, code=code)


def stream_refusal(error: Json, url: str, secret: str | None = None) -> ModelFault:
    """The error that a provider's error object inside a stream or a failed response stands for."""
    kinds, words = _words_of(error)
    text = f"{url} reported an error: {_cleaned(words, secret)}"
    for kind in kinds:
        if kind in _PERMANENT_TYPES:
            return PermanentModelError(text, code=_PERMANENT_TYPES[kind])
        if kind in _TRANSIENT_TYPES:
            return TransientModelError(text, code=_TRANSIENT_TYPES[kind])
    return PermanentModelError(text, code="model_error")


def garbage(url: str, what: str) -> PermanentModelError:
    """The error for a reply that is not of the endpoint's protocol; `what` says where."""
    return PermanentModelError(
        f"{url} replied with something that is not its protocol: {what}; is this a model endpoint?",
        code="bad_reply",
    )


def cut(url: str) -> TransientModelError:
    """The error for a stream that ended before its own last word."""
    return TransientModelError(
        f"the stream of {url} ended before the reply was complete; nothing of it is used", code="stream_cut"
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks: `retry-after-ms`, or Retry-After as seconds or as an HTTP date.

    A date counts from the answer's own Date header; without one it cannot be used and None is returned.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or value is None:
        return seconds
    try:
        until = parsedate_to_datetime(value)
        return max(0.0, (until - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _judge(status: int, kinds: tuple[str, ...]) -> tuple[str, bool]:
    for kind in kinds:
        if kind in _PERMANENT_TYPES and status < 500:
            return _PERMANENT_TYPES[kind], False
    if status in _TRANSIENT:
        return _TRANSIENT[status], True
    if status >= 500:
        return ("overloaded" if "overloaded_error" in kinds else "server_error"), True
    if 300 <= status < 400:
        return "redirected", False
    return _PERMANENT.get(status, "bad_request"), False


def _described(body: bytes) -> tuple[tuple[str, ...], str]:
    try:
        return _words_of(json.loads(body))
    except (ValueError, RecursionError):
        return (), body[: 4 * EXCERPT].decode("utf-8", "replace")


def _words_of(body: Json) -> tuple[tuple[str, ...], str]:
    """The error's kinds (its `code` and `type`, most telling first) and its message."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return (), str(error)
    kinds = tuple(str(error[key]) for key in ("code", "type") if isinstance(error.get(key), str))
    words = error.get("message") or error.get("detail") or json.dumps(error)
    return kinds, str(words)


def _cleaned(words: str, secret: str | None) -> str:
    if secret:
        words = words.replace(secret, "***")
    words = " ".join(words.split())
    return words if len(words) <= EXCERPT else words[:EXCERPT] + "…"
