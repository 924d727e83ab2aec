"""What verbs have in common: `--project`, `--json`, an event loop, an exit code, and what follows a word to a run.

Knows no verb.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_core import from_json

from retinue.host.presence import runtime_of
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.interrupts import run_until_interrupted
from retinue.ingress.render import money, short
from retinue.ingress.terminal import Terminal
from retinue.runs.contracts import MICROS, Budget, Json
from retinue.runs.errors import InvalidInput
from retinue.runs.joins import seconds

_LONGEST = 10 * 366 * 86_400.0
_NUMBER = re.compile(r"\d+(\.\d+)?")


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


class Duration(click.ParamType[float]):
    """A time span: `90`, `90s`, `10m`, `2h`, `1d`; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds, above 0; click's BadParameter otherwise."""
        text = str(value).strip()
        try:
            span = seconds(float(text) if _NUMBER.fullmatch(text) else text)
        except InvalidInput:
            span = 0.0
        if not 0 < span <= _LONGEST:
            self.fail(f"{value!r} is no time span such as 90s, 10m, 2h, 1d", param, ctx)
        return span


class Limits(click.ParamType[Budget]):
    """Limits of a budget: `steps=20,usd=1.50`."""

    name = "limits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Budget:
        """The budget; click's BadParameter names the limit that cannot be."""
        if isinstance(value, Budget):
            return value
        given: dict[str, str] = {}
        for part in str(value).split(","):
            name, _, limit = part.partition("=")
            if name.strip() not in Budget.model_fields or not limit.strip():
                names = ", ".join(Budget.model_fields)
                self.fail(f"{part.strip()!r} is no limit: give NAME=NUMBER, of {names}", param, ctx)
            given[name.strip()] = limit.strip().removeprefix("$")
        try:
            return Budget.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            self.fail(f"{first['loc'][0]}: {first['msg']} (got {str(first['input'])!r})", param, ctx)


def budget_of(limits: Sequence[Budget]) -> Budget | None:
    """The limits of a repeated option as one budget, the later above the earlier; None when there are none."""
    return functools.reduce(lambda before, after: after.within(before), limits) if limits else None


def parsed(text: str, what: str, instead: str) -> Json:
    """A value given as JSON. InvalidInput tells `what` is none, and how text is given `instead`."""
    try:
        return from_json(text)
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}; {instead}") from None


def what_follows(settings: Settings, run_id: str) -> str:
    """What becomes of a run to which something was said: a runtime carries it on, or nobody does yet."""
    name = short(run_id)
    if runtime_of(settings) is not None:
        return f"run {name}: it goes on"
    return f"run {name}: no runtime lives: `retinue wait {name}` carries it on"


def told_share(terminal: Terminal, settings: Settings, tenant: str | None, usd: Decimal | None) -> None:
    """Tell of the money limit that a run is given because its tenant has one and nobody named another."""
    name = tenant or settings.tenant
    limit = settings.limits.of_tenant(name)
    if usd is None and settings.budget.usd is None and limit.share is not None:
        terminal.note(
            f"money limit: {money(int(limit.share * MICROS))} unless its definition has one, since tenant {name!r} has "
            f"${limit.usd} ({limit.per}); --max-cost sets another"
        )


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
