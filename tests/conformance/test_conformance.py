"""The official suite's scenarios for clients, through the connections that runs use."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.plan import BY_INTENT, CLIENT, SERVER
from tests.conformance.run import run_client, run_server, served
from tests.conformance.suite import NotHere, Suite, installed

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def suite() -> Suite:
    try:
        return installed()
    except NotHere as error:
        pytest.skip(str(error))


@pytest.mark.promise("D1")
@pytest.mark.parametrize(("name", "version"), [(name, one) for name, versions in CLIENT.items() for one in versions])
def test_a_scenario_for_clients_passes(suite: Suite, tmp_path: Path, name: str, version: str) -> None:
    result = run_client(suite, name, version, tmp_path)
    assert result.surprises == [], result.printed
    assert result.misses == []


@pytest.mark.promise("H4")
@pytest.mark.parametrize(("name", "version"), [(name, one) for name, versions in SERVER.items() for one in versions])
def test_a_scenario_for_servers_passes(suite: Suite, tmp_path: Path, name: str, version: str) -> None:
    with served(tmp_path) as url:
        result = run_server(suite, url, name, version, tmp_path / "out")
    assert result.surprises == [], result.printed
    assert {check.name for check in result.misses} <= set(BY_INTENT)
