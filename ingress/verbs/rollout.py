"""`retinue rollout list`, `set`, `stop`, `check`, `history`: how far versions are let out. Needs no runtime."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import click

from retinue.host.opening import opened_store
from retinue.ingress.client import Client
from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import columns, moment
from retinue.ingress.rollout import Change, RolloutDesk
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.rollouts import WHOLE, Rollout

_HEAD = ("KIND", "NAME", "STAGE", "SHARE", "SINCE", "BY", "WHY")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


class Share(click.ParamType[int]):
    """A share: `10%` or `0.1`; in hundredths of a percent."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The share, above 0 and at most all; click's BadParameter otherwise."""
        if isinstance(value, int):
            return value
        found = _SHARE.fullmatch(str(value).strip())
        share = round(float(found[1]) * (WHOLE / 100 if found[2] else WHOLE)) if found else 0
        if not 0 < share <= WHOLE:
            self.fail(f"{value!r} is no share such as 10% or 0.1", param, ctx)
        return share


@click.group("rollout")
def rollout_command() -> None:
    """How far versions of agents and capabilities are let out. Each command takes --project and --json."""


@asynccontextmanager
async def _desk(terminal: Terminal) -> AsyncIterator[tuple[RolloutDesk, str]]:
    settings = terminal.settings()
    async with opened_store(settings) as store:
        yield RolloutDesk(Client(settings, store), store), settings.principal


@verb("list")
async def list_command(terminal: Terminal) -> Exit:
    """List the versions that are not out for all, and those that were ever moved."""
    async with _desk(terminal) as (desk, _):
        found = await desk.listed()
    terminal.give(found, columns(_HEAD, list(map(_row, found))) if found else "everything is out for all")
    return Exit.done


@verb("set")
@click.argument("name")
@click.argument("stage", metavar="STAGE", type=click.Choice(["shadow", "canary", "full"]))
@click.option("--share", type=Share(), metavar="SHARE", help="Of the runs, for canary: 10% or 0.1. Default: 10%.")
@click.option("--why", default="", help="The reason, for the record.")
@click.option("--by", help="Who says it. Default: the configuration's principal.")
async def set_command(
    terminal: Terminal,
    name: str,
    stage: Literal["shadow", "canary", "full"],
    share: int | None,
    why: str,
    by: str | None,
) -> Exit:
    """Let NAME or NAME@VERSION out.

    STAGE is shadow (its writes are recorded and not made), canary (a share of the runs gets it), or full.
    """
    async with _desk(terminal) as (desk, principal):
        moved = await desk.move(name, Change(stage, share, by or principal, why))
    return _tell(terminal, moved)


@verb("stop")
@click.argument("name")
@click.option("--why", default="", help="The reason, for the record.")
@click.option("--by", help="Who says it. Default: the configuration's principal.")
async def stop_command(terminal: Terminal, name: str, why: str, by: str | None) -> Exit:
    """Stop a version: runs that begin from now on do not get it, rules decide for those in progress."""
    async with _desk(terminal) as (desk, principal):
        moved = await desk.move(name, Change("stopped", None, by or principal, why or "stopped by hand"))
    return _tell(terminal, moved)


@verb("check")
@click.argument("name")
@click.option("--failed", required=True, metavar="REASON", help="What has failed.")
@click.option("--by", help="Who checked. Default: the configuration's principal.")
async def check_command(terminal: Terminal, name: str, failed: str, by: str | None) -> Exit:
    """Say that a check of a version has failed: its rollout stops."""
    async with _desk(terminal) as (desk, principal):
        moved = await desk.move(name, Change("stopped", None, by or principal, f"a check failed: {failed}"))
    return _tell(terminal, moved)


@verb("history")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
async def history_command(terminal: Terminal, name: str | None, limit: int) -> Exit:
    """List the changes of NAME, or all, newest first."""
    async with open_controls(terminal.settings()) as controls:
        found = await controls.rollouts(name, limit)
    terminal.give(found, columns(_HEAD, list(map(_row, found))) if found else "nothing was moved yet")
    return Exit.done


def _tell(terminal: Terminal, moved: Rollout) -> Exit:
    share = f" for {moved.share / 100:g} % of the runs" if moved.stage == "canary" else ""
    terminal.give(moved, f"{moved.kind} {moved.label}: {moved.stage}{share}; hosts see it within a second")
    return Exit.done


def _row(one: Rollout) -> list[str]:
    share = f"{one.share / 100:g} %" if one.stage == "canary" else ""
    since = moment(one.at) if one.at else "in code"
    return [one.kind, one.label, one.stage, share, since, one.by, one.reason]


for _command in (list_command, set_command, stop_command, check_command, history_command):
    rollout_command.add_command(_command)
