"""Two project folders over one PostgreSQL store, as two machines have them: one has the runtime, one its address."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.conftest import CommandLine
from tests.doubles.places import Places

QUESTION = "Since which version does Opera Android support the CSS selector `:modal`?"


@pytest.fixture
def elsewhere(research: CommandLine, places: Places, tmp_path: Path) -> Iterator[CommandLine]:
    """The project once more, in a folder of its own; both keep an archive of their traces in one place."""
    with places.new("postgres") as place:
        assert place.url is not None
        shared = {"RETINUE_STORE": place.url, "RETINUE_TRACES__ARCHIVE": f"file://{tmp_path}/shelf"}
        research.environ.update(shared, RETINUE_ACTORS__WORKERS="1")
        folder = tmp_path / "elsewhere" / "research"
        shutil.copytree(research.folder, folder)
        yield CommandLine(folder, dict(research.environ))
        research.run("down")


@pytest.mark.long
@pytest.mark.promise("C3", "I4", "K2")
@pytest.mark.timeout(300)
def test_a_machine_that_has_only_the_stores_address_uses_the_runtime_and_starts_none(
    research: CommandLine, elsewhere: CommandLine
) -> None:
    started = research.json("up")
    answer = elsewhere.json("run", "researcher", QUESTION)
    assert "72" in json.dumps(answer)
    [host] = [host for host in elsewhere.json("status")["hosts"] if host["kind"] == "run"]
    assert host["pid"] in [actor["pid"] for actor in started["actors"]]
    elsewhere.run("sql", "select 1", code=6)
    elsewhere.run("up", code=6)
    assert not (elsewhere.folder / ".retinue" / "runtime.lock").exists()

    token = str(research.folder / ".retinue" / "ray.token")
    elsewhere.environ |= {
        "RAY_ADDRESS": started["address"],
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token,
    }
    query = "select run_id, agent, status, reason, pid from runs"
    rows = elsewhere.json("sql", query)
    assert [(row["run_id"], row["status"], row["pid"]) for row in rows] == [
        (answer["run_id"], "completed", host["pid"])
    ]
    research.run("down")
    assert elsewhere.json("sql", "--archive", query) == rows, "the keeper wrote the archive when it ended"
