"""A small helpdesk: tickets in a SQLite file behind HTTP, and orders to misbehave, as real servers do without orders.

    python server.py --data tickets.db [--port 0]

POST /tickets            {mail, subject, queue, reference} → {number}. With the header Idempotency-Key a known key
                         gives its ticket again (200 in place of 201). A reference is kept, and never looked at.
                         After the moment in the header Deadline (Unix seconds) nothing is written any more: 412.
GET  /tickets            all tickets; ?reference= or ?mail= only those.
PUT  /faults             [{mail, does, times, seconds}]: what happens to the next POSTs for a mail. `drop` writes the
                         ticket and cuts the line, `lose` cuts it before anything is written, `slow` writes and holds
                         the reply back, `busy` writes nothing and says 503 with Retry-After.

Knows nothing of agents or of Retinue.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TABLE = """
CREATE TABLE IF NOT EXISTS tickets (
    number INTEGER PRIMARY KEY, mail TEXT NOT NULL, subject TEXT NOT NULL, queue TEXT NOT NULL,
    reference TEXT, idempotency_key TEXT UNIQUE)"""
FIELDS = ("mail", "subject", "queue", "reference")
LONGEST = 64 * 1024
"""Bytes of a request's body."""


class Desk:
    """The tickets, in a file, and what is to go wrong. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._tickets = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._tickets.execute(TABLE)
        self._faults: list[dict[str, Any]] = []

    def open(self, ticket: dict[str, Any], key: str | None, deadline: float | None) -> tuple[int, int]:
        """(HTTP status, number): 201 for a new ticket, 200 for the one a key has, 412 after the deadline."""
        with self._lock:
            known = self._tickets.execute("SELECT number FROM tickets WHERE idempotency_key = ?", (key,)).fetchone()
            if known is not None:
                return 200, known[0]
            if deadline is not None and time.time() > deadline:  # noqa: TID251
                return 412, 0
            values = [*(ticket.get(field) for field in FIELDS), key]
            query = "INSERT INTO tickets (mail, subject, queue, reference, idempotency_key) VALUES (?, ?, ?, ?, ?)"
            return 201, self._tickets.execute(query, values).lastrowid or 0

    def find(self, wanted: dict[str, str]) -> list[dict[str, Any]]:
        """Tickets by mail and reference, oldest first."""
        names = [name for name in ("mail", "reference") if name in wanted]
        where = " AND ".join(f"{name} = ?" for name in names) or "1"
        query = f"SELECT number, mail, subject, queue, reference FROM tickets WHERE {where} ORDER BY number"
        with self._lock:
            rows = self._tickets.execute(query, [wanted[name] for name in names]).fetchall()
        return [dict(zip(("number", *FIELDS), row, strict=True)) for row in rows]

    def plan(self, faults: list[dict[str, Any]]) -> None:
        """Replace what is to go wrong."""
        with self._lock:
            self._faults = [{"times": 1, "seconds": 1, **fault} for fault in faults]

    def fault(self, mail: str) -> dict[str, Any]:
        """What goes wrong with this POST, counted down; nothing is {"does": None}."""
        with self._lock:
            for fault in self._faults:
                if fault["mail"] == mail and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return {"does": None}


class Handler(BaseHTTPRequestHandler):
    """One request. The server carries the desk."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        """Open a ticket, or what was ordered in its place."""
        ticket = self._body()
        fault = self.server.desk.fault(ticket["mail"])
        if fault["does"] == "lose":
            self.close_connection = True
            return
        if fault["does"] == "busy":
            self._reply(503, {"error": "busy"}, {"Retry-After": str(fault["seconds"])})
            return
        deadline = self.headers.get("Deadline")
        status, number = self.server.desk.open(
            ticket, self.headers.get("Idempotency-Key"), None if deadline is None else float(deadline)
        )
        if fault["does"] == "drop":
            self.close_connection = True
            return
        if fault["does"] == "slow":
            self.server.stopping.wait(fault["seconds"])
        self._reply(status, {"number": number})

    def do_GET(self) -> None:
        """List tickets."""
        self._reply(200, self.server.desk.find(dict(parse_qsl(urlsplit(self.path).query))))

    def do_PUT(self) -> None:
        """Take orders to misbehave."""
        self.server.desk.plan(self._body())
        self._reply(200, {})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _body(self) -> Any:
        return json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), LONGEST)))

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


class Server(ThreadingHTTPServer):
    """The desk behind HTTP; `stopping` ends replies that are held back."""

    daemon_threads = True

    def __init__(self, port: int, desk: Desk) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.desk = desk
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed is no news."""


def main() -> None:
    """Serve until killed; the first line says where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--data", type=Path, required=True, help="the SQLite file")
    given = parser.parse_args()
    server = Server(given.port, Desk(given.data))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
