"""What the misbehaving servers share: one line of JSON for each message, and the handshake of 2025-11-25."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


def say(message: Message) -> None:
    """Write a message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def heard() -> Iterator[Message]:
    """Messages as they come; what begins a connection is answered."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "initialize":
            result: Message = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": True}}}
            say({"id": message["id"], "result": result | {"serverInfo": {"name": "bad", "version": "1"}}})
        elif message.get("method") == "server/discover":
            say({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})
        else:
            yield message


def tool(name: str = "work", **more: Any) -> Message:
    """A plain tool."""
    return {"name": name, "description": "Works.", "inputSchema": {"type": "object"}, **more}


def result(text: str) -> Message:
    """The result of a call."""
    return {"content": [{"type": "text", "text": text}]}
