"""A long run of one agent: 124 turns of looking, writing and planning under a small context limit.

As a program (argument: the project folder) it carries the run on the inline host until it is done, or until
somebody kills it. Its write tool appends to a file outside of everything, keyed. Knows no test.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from retinue import Budget, Compaction, Reset, agent, connect, tool
from retinue.host.settings import load_settings

LOG = "mails.log"
KEY = "the long run"
LIMIT = 2_000
TURNS = 124
RESETS = 50
REFUSED, RETRIED = 47, 60
"""The turns in which the mail is sent: somebody says no, then yes."""


class Report(BaseModel):
    """The answer: a quote from the very first document and one from the last."""

    first: dict[str, str]
    last: dict[str, str]


def text_of(number: int) -> str:
    """What document `number` says."""
    return f"Document {number} was written in {1500 + number}. " + f"It repeats itself {number} times. " * 8


@tool(side_effect="read")
def look(number: int) -> list[dict[str, str]]:
    """Read a document."""
    return [{"document": f"doc-{number}", "text": text_of(number)}]


@tool(side_effect="write", idempotency="idempotent")
def mail(text: str, *, key: str) -> str:
    """Send a mail, to a log that knows keys."""
    path = Path(os.environ["LONG_LOG"])
    lines = path.read_text().splitlines() if path.exists() else []
    if not any(line.startswith(key) for line in lines):
        with path.open("a") as file:
            file.write(f"{key} {text}\n")
    return f"sent {text}"


archivist = agent(
    "archivist",
    "Read everything and report.",
    tools=[look, mail],
    output=Report,
    plans=True,
    budget=Budget(steps=200, hops=400, tokens=2_000_000),
    compaction=Compaction(at=0.8, keep_turns=3),
    reset=Reset(turns=RESETS),
)


def decisions() -> list[dict[str, Any]]:
    """What the model decides, turn by turn. It declares b1 and b2, settles b1, and leaves b2 to the last turn."""
    made = [{"tool_calls": [called("look", number=turn)]} for turn in range(TURNS - 1)]
    made[2] = {"tool_calls": [called("look", number=2), called("plan", add=["tell Ana", "file the report"])]}
    made[40] = {"tool_calls": [called("plan", done=["b1"], next=["read on to 122"])]}
    made[REFUSED] = made[RETRIED] = {"tool_calls": [called("mail", text="found it")]}
    answer = {
        "first": {"document": "doc-0", "quote": "Document 0 was written in 1500."},
        "last": {"document": "doc-122", "quote": "Document 122 was written in 1622."},
    }
    return [*made, {"answer": answer}, {"tool_calls": [called("plan", done=["b2"], answer=answer)]}]


def called(name: str, **arguments: Any) -> dict[str, Any]:
    """One call as a script writes it."""
    return {"name": name, "arguments": arguments}


async def main(folder: Path) -> None:
    """Submit the run, or find it again, and wait until it has ended."""
    async with connect(settings=load_settings(folder), local=True) as client:
        handle = await client.submit(archivist, "What do the documents say?", idempotency_key=KEY)
        print("begun", handle.run_id, flush=True)
        await client.wait(handle.run_id, 60)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
