"""A workflow for test_run.py: reads an address from inside a sandbox."""

from __future__ import annotations

from retinue import Context, workflow

READS = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode(), end="")
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), end="")
"""


@workflow
async def reads(ctx: Context, address: str) -> str:
    """What a program in the sandbox `web` reads there."""
    box = await ctx.sandbox("web")
    done = await box.exec("python3", "-I", "-c", READS, address, timeout=30)
    return done.stdout + done.stderr
