"""What goes wrong between this side and a server, as the errors of an effect.

Owns the codes that this side puts in place of what HTTP said, and the judgement whether a call may have happened.
Judges by status and code, never by the text of a message: that is the server's, or a library's.
"""

from __future__ import annotations

from collections.abc import Collection

from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, PARSE_ERROR, REQUEST_TIMEOUT
from pydantic import ValidationError

from retinue.runs.errors import EffectError, PermanentError, TransientError
from retinue.sessions.mcp.texts import hide, one_line

BROKEN = -39001
"""The request may have arrived; no answer came."""
UNREACHABLE = -39002
"""The request did not arrive."""
SESSION_GONE = -39003
"""The server does not know the session any more: it refused the request at its door."""
DENIED = -39004
"""401 or 403."""
BUSY = -39005
"""429; its data may say `retry_after` in seconds."""
TOO_LARGE = -39006
"""The answer is larger than what this side takes."""
ENDED = -39007
"""A stream that was read on ended before the answer."""

OURS = frozenset({BROKEN, UNREACHABLE, SESSION_GONE, DENIED, BUSY, TOO_LARGE, ENDED})
UNANSWERED = frozenset({BROKEN, ENDED, CONNECTION_CLOSED, REQUEST_TIMEOUT, PARSE_ERROR})
"""The request may have been carried out, nobody knows."""


class Forgotten(TransientError):
    """The connection is no longer good, and the request was turned away for that: nothing was made. A new connection
    may be tried at once. `connection` is the one that is no longer good, where it is known.
    """

    def __init__(self, message: str, connection: object = None) -> None:
        super().__init__(message, code="not_made")
        self.connection = connection


MAX_TEXT = 500
"""Characters kept of a server's own error message."""


def judge(where: str, error: MCPError | ValidationError, secrets: Collection[str] = ()) -> EffectError:
    """What an error of a request means for the call. `where` names the tool or the server, for the message.

    TransientError: `lost` (it may have happened), `not_made`. PermanentError: `not_made`, `too_large`, `protocol`
    (answered with what is no result), `raised` (the server's own error).
    """
    if isinstance(error, ValidationError):
        problem = (
            f"{where} was called and answered with what is no result of its protocol ({error.error_count()} faults)"
        )
        return PermanentError(
            f"{problem}. Its effect may have happened; the server has to be corrected.", code="protocol"
        )
    text = hide(one_line(error.message, MAX_TEXT), secrets)
    if error.code in UNANSWERED:
        return TransientError(f"{where}: the reply was lost ({text}); the call may have happened.", code="lost")
    if error.code == SESSION_GONE:
        return Forgotten(f"{where} was not called: {text}.")
    if error.code == UNREACHABLE:
        return TransientError(f"{where} was not called: {text}.", code="not_made")
    if error.code == BUSY:
        return TransientError(f"{where} was not called: {text}.", code="not_made", retry_after=_retry_after(error))
    if error.code == DENIED:
        problem = f"{where} was not called: {text}"
        return PermanentError(f"{problem}. Check `auth` and `headers` of its server.", code="not_made")
    if error.code == TOO_LARGE:
        return PermanentError(f"{where}: {text}. The call was made: its effect has happened.", code="too_large")
    return PermanentError(f"{where} failed with code {error.code}: {text}", code="raised")


def _retry_after(error: MCPError) -> float | None:
    seconds = error.data.get("retry_after") if isinstance(error.data, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None
