"""The clock and the ids: the only place where time and randomness enter the program.

Everything else is given them.
"""

from __future__ import annotations

import secrets
import time

import uuid_utils

now_ns = time.time_ns
"""Unix time in nanoseconds."""


def new_run_id() -> str:
    """A fresh id that sorts by time: 32 hex digits (UUIDv7)."""
    return uuid_utils.uuid7().hex


def new_trace_id() -> str:
    """A fresh W3C trace id: 32 hex digits."""
    return uuid_utils.uuid4().hex


def new_span_id() -> str:
    """A fresh W3C span id: 16 hex digits."""
    return uuid_utils.uuid4().hex[16:]


def new_token() -> str:
    """A fresh secret that opens something for a while: 43 characters."""
    return secrets.token_urlsafe(32)
