"""The whole suite by hand: `python -m tests.escapes.run` prints what came of each attempt as JSON; with `--write`, as
root, everything is tried as an ordinary user too, and docs/escapes.md is written.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from tests.doubles.strangers import run_as_stranger
from tests.escapes import document
from tests.escapes.egress import attempts_at_the_way_out
from tests.escapes.hostward import attempts_on_the_host
from tests.escapes.limits import attempts_at_limits
from tests.escapes.trials import CONFINEMENTS, Outcome, attempts_inside, cell, usable

SECONDS = 300.0


async def _inside(name: str) -> dict[str, Outcome]:
    with cell(name) as at:
        return await attempts_inside(at)


GROUPS: dict[str, Callable[[str], Awaitable[dict[str, Outcome]]]] = {
    "inside": _inside,
    "limits": attempts_at_limits,
    "host": attempts_on_the_host,
    "egress": attempts_at_the_way_out,
}
"""Groups of attempts, by what makes them. Without a confinement only the first is made."""


async def found(name: str, *groups: str) -> dict[str, Outcome]:
    """What comes of these groups of attempts under a confinement, as the user that this process is."""
    outcomes: dict[str, Outcome] = {}
    for group in groups or GROUPS:
        if group == "inside" or name != "unconfined":
            outcomes |= await GROUPS[group](name)
    return outcomes


async def found_by_everybody(*groups: str) -> dict[str, dict[str, Outcome]]:
    """The same as an ordinary user, by confinement, from a process of his. Root only."""
    ran = await run_as_stranger(lambda mine: ["-m", "tests.escapes.run", *groups], SECONDS, most=4_000_000)
    if ran.status != 0:
        raise RuntimeError(f"the ordinary user's suite ended with {ran.status}: {ran.out}{ran.err}")
    said = json.loads(ran.out)
    return {name: {one: Outcome(**outcome) for one, outcome in outcomes.items()} for name, outcomes in said.items()}


async def _all(*groups: str) -> dict[str, dict[str, Outcome]]:
    return {name: await found(name, *groups) for name in CONFINEMENTS if usable(name)}


async def _write() -> None:
    results = {f"{name} root": outcomes for name, outcomes in (await _all()).items()}
    results |= {f"{name} user": outcomes for name, outcomes in (await found_by_everybody()).items()}
    document.PAGE.write_text(document.render(results))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        asyncio.run(_write())
    else:
        everything = asyncio.run(_all(*sys.argv[1:]))
        print(json.dumps({name: {one: asdict(it) for one, it in found.items()} for name, found in everything.items()}))
