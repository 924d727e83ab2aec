"""`retinue budgets`: what tenants have spent of their money, what is reserved, what is left. Needs no runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from retinue.host import clock
from retinue.host.answers import dollars
from retinue.host.settings import Settings
from retinue.ingress.controls import open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.render import money
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.accounts import Account, window_at


@verb("budgets")
@click.option("--tenant", help="Only this one.")
@click.option("--all", "everything", is_flag=True, help="Windows that are over too.")
async def budgets_command(terminal: Terminal, tenant: str | None, everything: bool) -> Exit:
    """Show the accounts of tenants with a money limit: spent, reserved for runs that have not ended, left.

    A tenant gets an account when its first run of a window is accepted. Limits are those of `limits:` now.
    """
    settings = terminal.settings()
    async with open_controls(settings) as controls:
        known = await controls.accounts()
    found = [each for each in _current(settings, known, everything) if tenant in (None, each.tenant_id)]
    facts = [
        {
            "tenant": each.tenant_id,
            "window": each.window,
            **{f"{name}_usd": dollars(amount) for name, amount in _amounts(each).items()},
            "refused_at": each.refused_at,
        }
        for each in found
    ]
    nobody = "no tenant has a money limit with runs in this window: `limits.tenants.NAME.usd` in retinue.yaml sets one"
    terminal.give(facts, "\n".join(map(_text, found)) or nobody)
    return Exit.done


def _current(settings: Settings, known: list[Account], everything: bool) -> Iterator[Account]:
    """The accounts to show, with the limits of now; those that nobody has begun yet are empty."""
    now = clock.now_ns()
    named = {name for name in settings.limits.tenants if name != "*"}
    there = {(each.tenant_id, each.window): each for each in known}
    for name in sorted(named | {each.tenant_id for each in known}):
        limit = settings.limits.of_tenant(name)
        window = window_at(limit.per, now)
        if limit.micros is not None:
            account = there.pop((name, window), Account(name, window, limit.micros))
            yield Account(**asdict(account) | {"limit": limit.micros})
        for each in known:
            if each.tenant_id == name and (name, each.window) in there and (everything or each.reserved):
                yield each


def _amounts(account: Account) -> dict[str, int]:
    return {name: getattr(account, name) for name in ("limit", "spent", "reserved", "left")}


def _text(account: Account) -> str:
    amounts = "  ".join(f"{name} {money(amount):>10}" for name, amount in _amounts(account).items())
    return f"{account.tenant_id:<16}  {account.window:<15}  {amounts}"
