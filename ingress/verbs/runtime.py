"""`retinue up`, `down`, `status`, `drain`: the runtime that outlives commands.

Knows Ray only through `actors.runtime`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from retinue.actors import runtime
from retinue.host.opening import identity_of, serving_hosts
from retinue.host.presence import RUNTIME
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.render import columns, counted
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import InvalidInput

if TYPE_CHECKING:
    from retinue.store.postgres.serving import Serving


@verb("up")
async def up_command(terminal: Terminal) -> Exit:
    """Start a runtime for the project: Ray, a supervisor and its actors. It lives until `retinue down`.

    Joins Ray where RAY_ADDRESS or `cluster:` names one. Harmless when the runtime lives already.
    """
    said = await asyncio.to_thread(runtime.up, terminal.settings())
    terminal.give({"alive": True, **said}, _text(said))
    return Exit.done


@verb("down")
async def down_command(terminal: Terminal) -> Exit:
    """Stop the project's runtime. Runs it hosted stay in the store and go on with the next runtime."""
    stopped = await asyncio.to_thread(runtime.down, terminal.settings())
    terminal.give({"stopped": stopped}, "stopped" if stopped else "no runtime was running")
    return Exit.done


@verb("status")
async def status_command(terminal: Terminal) -> Exit:
    """Show the project's runtime, and who serves a store that machines share. Exit code 6 when none lives."""
    settings = terminal.settings()
    hosts = await asyncio.to_thread(serving_hosts, settings)
    said, note = await asyncio.to_thread(_asked, settings, hosts)
    alive = said is not None or any(host.kind == RUNTIME for host in hosts)
    facts = {"alive": alive, **(said or {})}
    if settings.store is not None:
        facts["hosts"] = [host._asdict() for host in hosts]
    parts = [_text(said) if said else note, _hosts_text(hosts)]
    terminal.give(facts, "\n\n".join(filter(None, parts)))
    return Exit.done if alive else Exit.runtime


def _asked(settings: Settings, hosts: Sequence[Serving]) -> tuple[dict[str, Any] | None, str]:
    """What the runtime says of itself, or why it says nothing: the store knows of its hosts even so."""
    try:
        said = runtime.status(settings)
    except runtime.RuntimeFailed as error:
        if not hosts:
            raise
        return None, str(error)
    serves = any(host.kind == RUNTIME for host in hosts)
    what = "a runtime serves" if serves else "no runtime serves"
    remedy = "name its Ray in `cluster:` or RAY_ADDRESS for more" if serves else "`retinue up` starts one"
    return said, f"{what} {identity_of(settings)}: {remedy}"


def _hosts_text(hosts: Sequence[Serving]) -> str:
    """The hosts of a shared store, by node."""
    rows = [
        [host.node, host.kind, str(host.pid), str(host.holds), f"{max(host.silent, 0):.0f} s ago"] for host in hosts
    ]
    return columns(("NODE", "HOST", "PID", "HOLDS", "SEEN"), rows) if rows else ""


@verb("drain")
@click.argument("name")
async def drain_command(terminal: Terminal, name: str) -> Exit:
    """Empty an actor, a pool or a node: NAME as `retinue status` shows it.

    Its actors take no run any more, finish the steps in flight, give the runs back and end; nothing is lost and nothing
    is done twice. What a pool cannot do without is made anew, not on a node that was drained.
    """
    leaving = await asyncio.to_thread(runtime.drain, terminal.settings(), name)
    if not leaving:
        raise InvalidInput(f"nothing is called {name!r}: name an actor, a pool or a node that `retinue status` shows")
    terminal.give({"draining": leaving}, f"draining {', '.join(leaving)}; `retinue status` shows when they are gone")
    return Exit.done


def _text(said: dict[str, Any]) -> str:
    shown = ("name", "kind", "node", "pid", "state", "active", "finished")
    actors = [[str(actor.get(name, "")) for name in shown] for actor in said["actors"]]
    head = f"runtime on {said['node']}: supervisor pid {said['pid']}, Ray at {said['address']}"
    parts = [head, columns(("ACTOR", "KIND", "NODE", "PID", "STATE", "HOLDS", "FINISHED"), actors)]
    parts += _rules_lines(said["actors"])
    parts.append(columns(("POOL", "QUEUED", "OLDEST", "ACTORS", "BOUNDS"), list(map(_pool_row, said["pools"]))))
    parts += [f"{pool['name']}: {pool['note']}" for pool in said["pools"] if pool["note"]]
    return "\n\n".join(parts)


def _rules_lines(actors: Sequence[dict[str, Any]]) -> list[str]:
    """Which rules are in force in how many actors, and what is wrong with those that are not taken."""
    told = [actor["rules"] for actor in actors if actor.get("rules")]
    counts = Counter(rules["digest"] for rules in told)
    lines = [f"rules {digest} in force in {counted(count, 'actor')}" for digest, count in counts.most_common()]
    problems = dict.fromkeys(rules["problem"] for rules in told if rules["problem"])
    lines += [f"rules were changed and are not taken: {problem}" for problem in problems]
    return ["\n".join(lines)] if lines else []


def _pool_row(pool: dict[str, Any]) -> list[str]:
    """A pool as a line: `3, 1 starting` of its actors, `0 to 4` as its bounds."""
    words = [f"{pool[state]} {state}" for state in ("starting", "leaving") if pool[state]]
    actors = ", ".join([str(pool["serving"]), *words])
    oldest = f"{pool['oldest']:.0f} s" if pool["queued"] else "-"
    return [pool["name"], str(pool["queued"]), oldest, actors, f"{pool['low']} to {pool['high']}"]
