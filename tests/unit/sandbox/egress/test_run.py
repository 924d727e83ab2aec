"""A run whose sandbox reaches a host: real backend, proxy, gate and journal. A listed host needs a rule besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.doubles.projects import project
from tests.escapes.trials import usable
from tests.unit.sandbox.egress.ways import server

from retinue.host.composition import load_project
from retinue.host.inline import inline_host
from retinue.host.opening import open_store
from retinue.ingress.client import Client
from retinue.policy.rules import DEFAULTS
from retinue.runs.journal import Record

pytestmark = [pytest.mark.promise("E4", "F1")]

SANDBOX = '@id("web") permit (principal, action == Action::"sandbox", resource == Sandbox::"web");'
EGRESS = """
@id("hosts") permit (principal, action == Action::"egress", resource == Sandbox::"web")
when { context.facts.texts.hasTag("host") && context.facts.texts.getTag("host") == "127.0.0.1" };
"""


async def ran(folder: Path, policy: str, listed: str, address: str) -> tuple[Any, list[Record]]:
    """The run's value, and what its journal says of the gate's stage `egress`."""
    settings = project(
        folder,
        modules=["tests.unit.sandbox.egress.reaching"],
        policy=DEFAULTS.read_text() + policy,
        settings={"sandbox": {"profiles": {"web": {"extends": "build", "hosts": [listed]}}}},
    )
    (folder / "sandbox").mkdir()
    (folder / "sandbox" / "web.yaml").write_text("profile: web\n")
    store = open_store(settings)
    try:
        async with inline_host(load_project(settings), store, alone=True) as (pool, _):
            client = Client(settings, store, pool)
            run_id = (await client.submit("reads", address)).run_id
            value = (await client.wait(run_id, 60)).value
            await client.close()
        entries = [entry async for frame in store.read(run_id) for entry in frame.entries]
    finally:
        await store.close()
    return value, [one for one in entries if isinstance(one, Record) and one.facts.get("stage") == "egress"]


@pytest.fixture(autouse=True)
def _needs() -> None:
    if not usable("bubblewrap"):
        pytest.skip("bwrap is not installed")


async def test_a_host_that_a_rule_permits_is_reached_and_on_record(tmp_path: Path) -> None:
    async with server() as heard:
        value, asked = await ran(tmp_path, SANDBOX + EGRESS, heard.place, f"http://{heard.place}/")
    assert value == "hello\n"
    (record,) = asked
    facts: Any = record.facts
    assert (record.topic, facts["resource"], facts["decision"]["outcome"]) == ("policy", "web", "allow")
    assert list(facts["decision"]["rules"]) == ["hosts"]
    told = facts["asked"]["facts"]
    assert (told["host"], told["port"], told["profile"]) == ("127.0.0.1", heard.port, "web")


async def test_without_a_rule_a_listed_host_is_not_reached(tmp_path: Path) -> None:
    async with server() as heard:
        value, asked = await ran(tmp_path, SANDBOX, heard.place, f"http://{heard.place}/")
    assert value.startswith("403 the policy does not allow this run to reach 127.0.0.1:")
    assert [one.facts["decision"]["outcome"] for one in asked] == ["deny"]  # type: ignore[index, call-overload]
    assert heard.got == []


async def test_for_a_host_that_is_not_listed_nobody_is_asked(tmp_path: Path) -> None:
    async with server() as heard:
        value, asked = await ran(tmp_path, SANDBOX + EGRESS, "example.org", f"http://{heard.place}/")
    assert value.startswith("403 127.0.0.1:") and "is not among the hosts of this sandbox's profile" in value
    assert asked == [] and heard.got == []
