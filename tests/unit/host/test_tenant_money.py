"""A tenant's money from the command line's side: the share that is given and told, the refusal, the alert."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.doubles.projects import decides, project
from tests.doubles.worlds import costs

from retinue.host.settings import Settings
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.ingress.verbs.budgets import budgets_command
from retinue.runs.alerts import Alert
from retinue.runs.contracts import Budget, RunRequest
from retinue.runs.errors import LimitReached
from retinue.runs.rollouts import Rollout

pytestmark = pytest.mark.promise("A5")

MODULE = """
from retinue import agent, workflow

@workflow
async def note(ctx, told):
    return "noted"

helper = agent("helper", "Help.", follow_ups=[note])
"""
LIMITS = {"tenants": {"*": {"usd": 2, "per": "total"}}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "spenders.py").write_text(MODULE)
    paid = decides(costs({"answer": "42"}, "0.15"))
    return project(tmp_path, paid, modules=["spenders"], settings={"limits": LIMITS, "alerts": {"every": 0.05}})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with connect(settings=settings, local=True) as made:
        yield made


async def request_of(client: Client, run_id: str) -> RunRequest:
    [first, *_] = [frame async for frame in client._store.read(run_id)]
    request: Any = first.entries[0]
    return request.request  # type: ignore[no-any-return]


async def alerts_of(client: Client, there: bool) -> list[Alert]:
    """What the host of this client has raised, when there is something, or nothing any more."""
    async with asyncio.timeout(20):
        while True:
            found = await client.alerts()
            if bool(found) is there:
                return found
            await asyncio.sleep(0.02)


async def books(client: Client) -> tuple[int, int]:
    [account] = await client.accounts()
    return account.spent, account.reserved


async def test_a_run_is_given_a_tenth_and_its_follow_ups_what_it_leaves(client: Client) -> None:
    handle = await client.submit("helper", "go")
    assert (await request_of(client, handle.run_id)).budget.usd == Decimal("0.2")
    assert await handle.result(20) == "42"
    [follow_up] = (await client.tree(handle.run_id)).records[1:]
    await client.wait(follow_up.run_id, 20)
    assert (await request_of(client, follow_up.run_id)).budget.usd == Decimal("0.05")
    assert await books(client) == (150_000, 0)


async def test_what_leaves_no_room_is_refused_and_alerted(client: Client) -> None:
    await (await client.submit("helper", "go", budget=Budget(usd=Decimal(1)))).result(20)
    with pytest.raises(LimitReached, match="150000 USD spent"):
        await client.submit("helper", "go", budget=Budget(usd=Decimal("1.9")))
    [alert] = await alerts_of(client, there=True)
    assert (alert.kind, alert.lasting) == ("budget", True)
    assert "has no room for more runs under its limit of 2.000000 USD (total)" in alert.message


async def test_a_stopped_rollout_is_alerted_until_it_goes_on(client: Client) -> None:
    stopped = Rollout(kind="agent", name="helper", version="1", stage="stopped", at=1, by="runtime", reason="it hurt")
    await client._store.rollouts.stop(stopped)
    [alert] = await alerts_of(client, there=True)
    assert alert.kind == "rollout" and "agent helper@1 was stopped by runtime" in alert.message
    await client._store.rollouts.stop(stopped.model_copy(update={"stage": "full"}))
    await alerts_of(client, there=False)


def test_the_accounts_are_shown(settings: Settings) -> None:
    async def spend() -> None:
        async with connect(settings=settings, local=True) as client:
            await (await client.submit("helper", "go", tenant="acme")).result(20)

    asyncio.run(spend())
    shown = CliRunner().invoke(budgets_command, ["--project", str(settings.folder), "--json"])
    [account] = json.loads(shown.stdout)
    assert (account["tenant"], account["window"], account["limit_usd"]) == ("acme", "total", 2.0)
    assert account["spent_usd"] == 0.15
