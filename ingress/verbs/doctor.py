"""`retinue doctor`: checks of this machine and project, and the readiness record. Changes nothing."""

from __future__ import annotations

import asyncio

import click

from retinue.host.settings import Settings
from retinue.ingress.checks import Check, check_all
from retinue.ingress.exits import Exit
from retinue.ingress.manifest_checks import check_manifests
from retinue.ingress.readiness import Area, areas_of
from retinue.ingress.sandbox_checks import try_sandboxes
from retinue.ingress.server_checks import check_servers, reach_servers
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb


@verb("doctor")
@click.option("--connect", is_flag=True, help="Connect to the servers of capabilities, and compare with the pins.")
async def doctor_command(terminal: Terminal, connect: bool) -> Exit:
    """Check Python, libraries, Ray, the data folder, the policy, the modules, the model, servers and the runtime, try
    to get out of sandboxes, and tell for each area who owns it, what is missing for production and what is decided.

    Exit code 1 when a check fails.
    """
    settings = terminal.settings()
    looked, tried = await asyncio.gather(asyncio.to_thread(_look, settings), try_sandboxes(settings))
    checks = [*looked, *tried]
    checks += await reach_servers(settings) if connect else []
    areas = areas_of(settings)
    text = "\n".join([*map(_check_line, checks), "", *map(_area_lines, areas)])
    terminal.give({"checks": checks, "readiness": areas}, text)
    return Exit.done if all(check.ok for check in checks) else Exit.failed


def _look(settings: Settings) -> list[Check]:
    return [*check_all(settings), *check_servers(settings), *check_manifests(settings)]


def _check_line(check: Check) -> str:
    return f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<14} {check.said}"


def _area_lines(area: Area) -> str:
    return "\n".join(
        (
            f"{area.name} · {area.decision} · owner: {area.owner}",
            f"  has: {area.state}",
            f"  gap: {area.gap}",
        )
    )
