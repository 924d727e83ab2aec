"""The mail that opened two tickets: the same 20 mails, the same unreliable helpdesk, four ways to open tickets.

    python demo.py

Each way gets a helpdesk of its own, a process with its tickets in a file, which loses replies and requests and is
busy once. In the middle, right after the helpdesk has written a ticket, the triage is killed with SIGKILL and then
started again. Nothing to configure, no network.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
OUT = HERE / "out"
RETINUE = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]
ASKS = 3
"""What `retinue batch` ends with when only people can bring it on."""

KILLED_AT = "m12"
FAULTS = [
    {"mail": "m03", "does": "drop"},
    {"mail": "m05", "does": "busy", "seconds": 1},
    {"mail": "m08", "does": "lose"},
    {"mail": KILLED_AT, "does": "slow", "seconds": 60},
]
CONTRACTS = ("idempotent", "reconcilable", "at_most_once")


@dataclass(frozen=True)
class Helpdesk:
    """The server of one way, as the demo and the person at the desk see it."""

    url: str

    def tickets(self, **wanted: str) -> list[dict[str, Any]]:
        """Its tickets, perhaps only those of a mail."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/tickets", params=wanted).json()
        return found


@contextmanager
def helpdesk(name: str) -> Iterator[Helpdesk]:
    """A helpdesk without tickets that will misbehave; it ends with the block."""
    data = OUT / f"{name}.db"
    data.unlink(missing_ok=True)
    server = subprocess.Popen(
        [sys.executable, "server.py", "--data", str(data)], cwd=HERE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        httpx.put(f"{url}/faults", json=FAULTS)
        yield Helpdesk(url)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def start(desk: Helpdesk, *words: str) -> subprocess.Popen[str]:
    """A command that talks to this helpdesk; what it notes for its reader is kept for the end."""
    environ = os.environ | {"HELPDESK_URL": desk.url}
    return subprocess.Popen(words, cwd=HERE, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(desk: Helpdesk, *words: str) -> tuple[int, str]:
    """Run a command to its end: its exit code, and what it printed. A failure ends the demo."""
    process = start(desk, *words)
    said, _ = process.communicate(timeout=120)
    if process.returncode not in (0, ASKS):
        sys.exit(f"{' '.join(words)} ended with {process.returncode}:\n{said}")
    return process.returncode, said


def kill_in_the_middle(desk: Helpdesk, *words: str) -> None:
    """Start a command and kill it when the helpdesk has written the ticket that it waits for."""
    process, until = start(desk, *words), time.monotonic() + 60
    while not desk.tickets(mail=KILLED_AT) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    said, _ = process.communicate()
    if not desk.tickets(mail=KILLED_AT):
        sys.exit(f"{' '.join(words)} opened no ticket for {KILLED_AT}:\n{said}")
    print(f"   killed with SIGKILL: the helpdesk has {len(desk.tickets())} tickets, the one of {KILLED_AT} among them")


def retinue(desk: Helpdesk, *words: str) -> int:
    """Run a `retinue` command and show it with what it prints; its exit code."""
    print(f"\n$ retinue {shlex.join(words)}", flush=True)
    code, said = finish(desk, *RETINUE, *words)
    print(said.replace(f"{HERE.resolve()}{os.sep}", "").strip(), flush=True)
    return code


def naive(desk: Helpdesk) -> None:
    """The loop of naive.py, killed and started again."""
    progress = OUT / "naive.txt"
    progress.unlink(missing_ok=True)
    loop = [sys.executable, "naive.py", str(progress)]
    kill_in_the_middle(desk, *loop)
    finish(desk, *loop)


def triage(desk: Helpdesk, contract: str) -> None:
    """A batch of Retinue, killed and resumed; a person answers what its contract leaves to people."""
    files = ["--input", "mails.jsonl", "--output", f"out/{contract}.jsonl", "--concurrency", "4", "--local"]
    kill_in_the_middle(desk, *RETINUE, "batch", contract, *files, "--force")
    batch = ["batch", contract, *files, "--resume"]
    if retinue(desk, *batch) == ASKS:
        retinue(desk, "inbox")
        for wait in open_doubts(desk):
            retinue(desk, "answer", wait["request_id"], *look(desk, wait["input_id"]), "--by", "ben")
        retinue(desk, *batch)


def open_doubts(desk: Helpdesk) -> list[dict[str, Any]]:
    """What `retinue inbox` lists, as data."""
    waits: list[dict[str, Any]] = json.loads(finish(desk, *RETINUE, "inbox", "--json")[1])["waits"]
    return waits


def look(desk: Helpdesk, mail: str) -> list[str]:
    """What the person at the desk does: look whether the mail has a ticket, and say what is there."""
    tickets = desk.tickets(mail=mail)
    print(f"\n   ben looks into the helpdesk: {len(tickets)} tickets for {mail}", end="")
    return ["--value", json.dumps({"happened": tickets[0]["number"]})] if tickets else ["absent"]


def tally(name: str, desk: Helpdesk) -> str:
    """A line of the last table: mails by the number of their tickets."""
    counts = Counter(ticket["mail"] for ticket in desk.tickets())
    twice = ", ".join(f"{mail} ({count})" for mail, count in sorted(counts.items()) if count > 1)
    return f"{name:<14} {len(counts):>5} {counts.total():>8}   {twice or 'none'}"


def main() -> None:
    """Go all four ways, then count the tickets."""
    OUT.mkdir(exist_ok=True)
    lines = [f"{'way':<14} mails  tickets   opened more than once"]
    for name in ("naive", *CONTRACTS):
        print(f"\n── {name}", flush=True)
        with helpdesk(name) as desk:
            naive(desk) if name == "naive" else triage(desk, name)
            lines.append(tally(name, desk))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
