"""A server that says what it is told: `python echo.py stdio`, or `python echo.py http`, which prints its port."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer


def build() -> MCPServer:
    server = MCPServer("echo", version="1", log_level="ERROR")

    @server.tool(structured_output=False)
    def echo(message: str) -> str:
        """Say it again."""
        return message

    return server


async def serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    app = build().streamable_http_app()
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        build().run("stdio")
    else:
        asyncio.run(serve())
