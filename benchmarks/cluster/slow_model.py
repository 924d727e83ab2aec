"""A model endpoint that answers late: `python -m benchmarks.cluster.slow_model HOST PORT SECONDS TURNS`.

Speaks Chat Completions; a run asks TURNS times, each answer comes after SECONDS. Holds any number of calls.
"""

from __future__ import annotations

import asyncio
import sys

from tests.doubles.model_server import ModelServer, Planner, Received
from tests.doubles.model_wire import Plan


def planner(turns: int, delay: float) -> Planner:
    """Calls of the tool `look` until the last turn, which answers."""

    def plan(received: Received) -> Plan:
        done = sum(message["role"] == "tool" for message in received.body["messages"])
        if done + 1 < turns:
            return Plan(tool_calls=(("look", f'{{"what": "turn {done}"}}'),), fault="slow", delay=delay)
        return Plan(text=f"seen {done} times", fault="slow", delay=delay)

    return plan


class Forgetful(list[Received]):
    """The server keeps what it received; hours of it are not wanted here."""

    def append(self, received: Received) -> None:
        self[:] = [received]


async def serve(host: str, port: int, delay: float, turns: int) -> None:
    """Serve until the process is ended."""
    async with ModelServer(planner(turns, delay), requests=Forgetful(), host=host, port=port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
