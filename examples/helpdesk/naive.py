"""The same triage as a plain loop: it retries what failed and notes what it has done. It opens tickets twice.

    python naive.py PROGRESS

Started again with the same PROGRESS file, it goes on behind the last mail that it noted. Uses nothing of Retinue;
what its model would decide, it reads from the same script. HELPDESK_URL says where the helpdesk is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
TRIES = 4


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]


def open_ticket(ticket: dict[str, Any]) -> None:
    """Open a ticket, and again when that fails. This is the mistake: a failure does not mean that nothing happened."""
    for left in reversed(range(TRIES)):
        try:
            httpx.post(f"{os.environ['HELPDESK_URL']}/tickets", json=ticket, timeout=3).raise_for_status()
        except httpx.HTTPError:
            if not left:
                raise
            time.sleep(0.2)
        else:
            return


def main(progress: Path) -> None:
    """Triage all mails that are not noted as done."""
    done = set(progress.read_text().split()) if progress.exists() else set()
    for mail, line in zip(rows("mails.jsonl"), rows("model.jsonl"), strict=True):
        if mail["id"] in done:
            continue
        decided = line["decisions"][0]["answer"]
        if decided["queue"] != "none":
            open_ticket({"mail": mail["id"], **decided})
        with progress.open("a") as file:
            file.write(f"{mail['id']}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
