"""News that something was committed: NOTIFY after a commit, LISTEN in every process, and a slow poll behind both.

A hint only says that a look may be worth it; a lost one costs a moment. It is sent after the commit, outside of it,
since a NOTIFY inside would make all commits of the database wait for each other. Knows no operation.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

_LOG = logging.getLogger("retinue.store")
_CHANNEL = "retinue"
_POLL = 0.5
"""Seconds until one looks without having been told."""
_APART = 0.004
"""Seconds between two hints of one process, at least."""


class Hints:
    """A thread that listens and tells. `version` grows with every hint and with every poll."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self.version = 0
        self._connect = connect
        self._closed = False
        self._ears, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        os.set_blocking(self._ears, False)
        self._thread = threading.Thread(target=self._serve, name="retinue-hints", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """This process has committed what others may wait for."""
        self.version += 1
        with suppress(BlockingIOError):
            os.write(self._mouth, b".")

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        with suppress(BlockingIOError):
            os.write(self._mouth, b".")
        self._thread.join()
        os.close(self._mouth)
        os.close(self._ears)

    def _serve(self) -> None:
        away = False
        while not self._closed:
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {_CHANNEL}")
                    away = False
                    self._listen(connection)
            except Exception as error:  # whatever it is: without this thread nobody would look again
                if not away:
                    _LOG.warning("no hints from the store for now, it is polled: %s", str(error).strip())
                away = True
                self.version += 1
                time.sleep(_POLL)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        polled = time.monotonic()
        while not self._closed:
            told = self._wait(connection, max(polled + _POLL - time.monotonic(), 0))
            if time.monotonic() - polled >= _POLL:
                polled = time.monotonic()
                self.version += 1
            if told:
                connection.execute(f"NOTIFY {_CHANNEL}")
                time.sleep(_APART)

    def _wait(self, connection: psycopg.Connection[Any], timeout: float) -> bool:
        """Wait for a hint of others, or for one of ours to be sent (True)."""
        poll = select.poll()  # select() knows no file number above 1,023
        for file in (connection.fileno(), self._ears):
            poll.register(file, select.POLLIN)
        ready = [file for file, _ in poll.poll(timeout * 1_000)]
        own = connection.info.backend_pid
        if any(note.pid != own for note in connection.notifies(timeout=0)):
            self.version += 1
        if self._ears not in ready:
            return False
        os.read(self._ears, 4096)
        return not self._closed
