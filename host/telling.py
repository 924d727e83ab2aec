"""Telling somebody of an alert: a signed post to a webhook, or a command that gets it on stdin.

Each has ten seconds. Knows no rule and no store. Addresses are secrets here: errors name their host only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from typing import BinaryIO
from urllib.parse import urlsplit

from retinue.host.settings import Settings
from retinue.inference.http import Call, Http, encoded
from retinue.runs.contracts import Json
from retinue.runs.errors import EffectError, RetinueError

SECONDS = 10.0
"""How long one way of telling may take."""

SIGNATURE = "x-retinue-signature"
"""Header of a signed post: `sha256=` and the HMAC-SHA256 of the body, in hex."""

Body = dict[str, Json]
Tell = Callable[[Body], Awaitable[None]]
"""Tells somebody, or raises NotTold."""

_SHOWN = 300
_MAX_REPLY = 1024 * 1024


class NotTold(RetinueError):
    """Nobody was told; the message says why, and holds no secret."""


def channels_of(settings: Settings) -> dict[str, Tell]:
    """The ways of telling that are configured, by name."""
    found: dict[str, Tell] = {}
    if settings.alerts.webhook is not None:
        found["webhook"] = partial(_post, settings.alerts.webhook, settings.alerts.webhook_secret)
    if settings.alerts.command:
        found["command"] = partial(_run, settings.alerts.command, str(settings.folder))
    return found


async def _post(url: str, secret: str | None, body: Body) -> None:
    call = Call(url, {"user-agent": "retinue"}, body, SECONDS)
    if secret is not None:
        call = replace(call, headers={**call.headers, SIGNATURE: _signature(secret, encoded(call))})
    host, http = urlsplit(url).hostname, Http(max_bytes=_MAX_REPLY)
    try:
        answer = await http.post(call)
    except EffectError as error:
        raise NotTold(f"the webhook at {host} was not reached ({error.code})") from None
    finally:
        await http.close()
    if not answer.ok:
        raise NotTold(f"the webhook at {host} answered {answer.status}")


def _signature(secret: str, body: bytes) -> str:
    key = os.environ.get(secret)
    if not key:
        raise NotTold(
            f"alerts.webhook_secret: environment variable {secret} is not set where alerts are sent from: set it there"
        )
    return "sha256=" + hmac.new(os.fsencode(key), body, hashlib.sha256).hexdigest()


async def _run(words: tuple[str, ...], folder: str, body: Body) -> None:
    with TemporaryFile() as errors:
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                cwd=folder,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise NotTold(f"alerts.command: {words[0]!r} cannot be started: {error}") from None
        try:
            async with asyncio.timeout(SECONDS):
                code = await _fed(process, json.dumps(body).encode() + b"\n")
        except TimeoutError:
            raise NotTold(f"alerts.command: {words[0]!r} was stopped after {SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                await _kill(process)
        if code:
            raise NotTold(f"alerts.command: {words[0]!r} ended with {code}: {_end_of(errors)}")


async def _fed(process: asyncio.subprocess.Process, body: bytes) -> int:
    """Give a process its input and wait for its end; one that does not read it may end well all the same."""
    assert process.stdin is not None
    with suppress(ConnectionError):
        process.stdin.write(body)
        await process.stdin.drain()
        process.stdin.close()
    return await process.wait()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _end_of(errors: BinaryIO) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(errors.tell() - _SHOWN, 0))
    return errors.read(_SHOWN).decode("utf-8", "replace").strip() or "it said nothing on stderr"
