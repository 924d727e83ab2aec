"""A server over stdio whose tools are what a file says just now: `shifting.py TOOLS.json`.

The file holds a list of {"name", "description", "inputSchema", "outputSchema"?, "annotations"?}. A call returns its
name and arguments as text. Plain JSON-RPC of the old handshake, without any library.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def answer(method: str, params: dict[str, Any], tools: Path) -> dict[str, Any] | None:
    """The result of a request; None for a method that is not known."""
    if method == "initialize":
        said = {"name": "shifting", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": said}
    if method == "tools/list":
        return {"tools": json.loads(tools.read_text())}
    if method == "tools/call":
        text = json.dumps([params["name"], params.get("arguments", {})])
        return {"content": [{"type": "text", "text": text}]}
    return {} if method == "ping" else None


def main(tools: Path) -> None:
    """Answer line by line until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = answer(request["method"], request.get("params", {}), tools)
        error = {"code": -32601, "message": f"no method {request['method']}"}
        body = {"result": result} if result is not None else {"error": error}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **body}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
