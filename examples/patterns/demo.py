"""Each pattern of newsroom.py once, hosted in this process with a scripted model: nothing to configure, no network.

    python demo.py

Then `retinue ps`, `retinue inspect RUN` and `retinue sql` show what happened; the runs are kept in .retinue/.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import retinue

HERE = Path(__file__).parent
RETINUE = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]

RUNS = [
    ("article", "tea"),
    ("article", "soup"),
    ("letters", "The paper was late again."),
    ("letters", "What has four legs in the morning?"),
    ("review", "The bridge cost 40,000."),
    ("jury", "The bridge cost 40,000."),
    ("story", "Who built the bridge, and who paid?"),
    ("headline", "The new bridge was opened today."),
    ("desk", "I have paid twice."),
    ("desk", "I am lost."),
]


async def run_all() -> list[str]:
    """Run everything, print how it ended; returns the ids of the runs."""
    ids = []
    async with retinue.connect(HERE, local=True) as client:
        for target, given in RUNS:
            handle = await client.submit(target, given)
            branch = await client.wait(handle.run_id, timeout=60)
            ids.append(handle.run_id)
            print(f"\n{target}({given!r}): {branch.status} ({branch.reason})")
            print(json.dumps(branch.value, indent=2, ensure_ascii=False) if branch.ok else branch.error.message)
    return ids


def main() -> None:
    """Run all, then show how `retinue inspect` tells where the story stands among its boundaries."""
    ids = asyncio.run(run_all())
    story = ids[[target for target, _ in RUNS].index("story")]
    print(f"\n$ retinue inspect {story}", flush=True)
    sys.exit(subprocess.run([*RETINUE, "inspect", story], cwd=HERE).returncode)


if __name__ == "__main__":
    main()
