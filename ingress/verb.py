"""What verbs have in common: `--project`, `--json`, an event loop, an exit code, and what follows a word to a run.

Knows no verb.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from retinue.host.presence import find_runtime
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.interrupts import run_until_interrupted
from retinue.ingress.render import short
from retinue.ingress.terminal import Terminal
from retinue.runs.contracts import Budget


class Dollars(click.ParamType[Decimal]):
    """An amount of money: `0.50` or `$0.50`, to the micro-dollar."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """The amount; click's BadParameter otherwise."""
        try:
            usd = Budget(usd=Decimal(str(value).removeprefix("$"))).usd
        except (ArithmeticError, ValueError):
            usd = None
        if usd is None:
            self.fail(f"{value!r} is no amount of dollars such as 0.50", param, ctx)
        return usd


def what_follows(settings: Settings, run_id: str) -> str:
    """What becomes of a run to which something was said: a runtime carries it on, or nobody does yet."""
    name = short(run_id)
    if find_runtime(settings.data_folder) is not None:
        return f"run {name}: it goes on"
    return f"run {name}: no runtime lives: `retinue wait {name}` carries it on"


Body = Callable[..., Coroutine[Any, Any, Exit]]


def verb(name: str) -> Callable[[Body], click.Command]:
    """Make a command of `async def body(terminal, **options) -> Exit`; its docstring is the help."""

    def define(body: Body) -> click.Command:
        @functools.wraps(body)
        def callback(project: Path | None, as_json: bool, **options: Any) -> None:
            code = run_until_interrupted(body(Terminal(as_json, project), **options))
            sys.exit(int(code))

        for option in (_PROJECT, _JSON):
            callback = option(callback)
        return click.command(name)(callback)

    return define


_PROJECT = click.option(
    "--project",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The project's folder or its retinue.yaml. Default: the current folder or the nearest above it.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Speak JSON on stdout, errors too.")
