"""A server with the extension for tasks, over HTTP: calls become tasks that outlive connections.

    tasker.py PORT [TTL_MS]

`work` takes `seconds`; `order` asks for an amount in the middle; `broken` fails as a request, `refused` as a tool.
What happened is written to `path`. `ready PORT` is printed when it listens.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, RequestParams

BEGAN = datetime.fromtimestamp(Path(sys.argv[0]).stat().st_atime, UTC) + timedelta(days=365)
"""A time that is not over soon; when exactly is all the same here."""

FORM = {"type": "object", "properties": {"euros": {"type": "integer"}}, "required": ["euros"]}


def note(path: str, line: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")


class TaskParams(RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class Tasks(Extension):
    """Every call is a task, kept in memory."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, ttl_ms: int) -> None:
        self.ttl_ms = ttl_ms
        self.tasks: dict[str, dict[str, Any]] = {}
        self.replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.running: dict[str, asyncio.Task[None]] = {}

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding(f"tasks/{name}", TaskParams, handler)
            for name, handler in (("get", self.get), ("update", self.update), ("cancel", self.cancel))
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        now = BEGAN.isoformat()
        name = f"task-{len(self.tasks) + 1}"
        task = {"taskId": name, "status": "working", "createdAt": now, "lastUpdatedAt": now}
        self.tasks[name] = task | {"ttlMs": self.ttl_ms, "pollIntervalMs": 50, "statusMessage": "at \x1b[1mwork"}
        self.running[name] = asyncio.create_task(self.work(name, params.name, params.arguments or {}))
        return {"resultType": "task", **self.tasks[name]}

    async def work(self, name: str, tool: str, arguments: dict[str, Any]) -> None:
        task, path = self.tasks[name], arguments.get("path", "")
        try:
            note(path, "begun")
            text = "done"
            if tool == "order":
                text = f"ordered for {(await self.ask(name))['content']['euros']}"
            await asyncio.sleep(arguments.get("seconds", 0.1))
            if tool == "broken":
                task |= {"status": "failed", "error": {"code": -32603, "message": "the \x1b[31mdisk is full"}}
                return
            result = {"content": [{"type": "text", "text": text}], "isError": tool == "refused"}
            task |= {"status": "completed", "result": result}
        except asyncio.CancelledError:
            note(path, "cancelled")
            task |= {"status": "cancelled"}

    async def ask(self, name: str) -> dict[str, Any]:
        self.replies[name] = asyncio.get_running_loop().create_future()
        params = {"mode": "form", "message": "How much?", "requestedSchema": FORM}
        request = {"method": "elicitation/create", "params": params}
        self.tasks[name] |= {"status": "input_required", "inputRequests": {"amount": request}}
        return await self.replies[name]

    def find(self, name: str) -> dict[str, Any]:
        if name not in self.tasks:
            raise MCPError(-32602, "Failed to retrieve task: Task not found")
        return self.tasks[name]

    async def get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        return {"resultType": "complete", **self.find(params.task_id)}

    async def update(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        task = self.find(params.task_id)
        reply = (params.input_responses or {}).get("amount")
        if reply is not None and not self.replies[params.task_id].done():
            task.pop("inputRequests")
            task["status"] = "working"
            self.replies[params.task_id].set_result(reply)
        return {"resultType": "complete"}

    async def cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        self.find(params.task_id)
        self.running[params.task_id].cancel()
        return {"resultType": "complete"}


def work(seconds: float = 0.1, path: str = "") -> str:
    """Work as a task."""
    raise AssertionError("calls are intercepted")


def main(port: int, ttl_ms: int) -> None:
    server = MCPServer("tasker", log_level="ERROR", extensions=[Tasks(ttl_ms)])
    for name in ("work", "order", "broken", "refused"):
        server.add_tool(work, name=name)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    print("ready", listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error")).run(sockets=[listener])


main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60_000)
