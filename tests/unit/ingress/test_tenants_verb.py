"""`retinue tenants list|erase`: the content of a tenant goes for ever, that of others stays, and both are on record."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from threading import Event

import click
import pytest
from tests.doubles.processes import python
from tests.unit.ingress.conftest import Command

from retinue.host.clock import now_ns
from retinue.host.opening import open_store
from retinue.host.sandboxes import bases_of, open_snapshots
from retinue.host.settings import load_settings
from retinue.ingress.exits import Exit
from retinue.ingress.sync import connect_sync
from retinue.ingress.terminal import Terminal
from retinue.runs.contracts import Status
from retinue.runs.control import SnapshotPin
from retinue.sandbox.snapshots import objects
from retinue.sandbox.snapshots.copying import guarded
from retinue.sandbox.snapshots.scanning import scan
from retinue.sandbox.snapshots.trees import Tree

pytestmark = [pytest.mark.promise("I6")]

SAID = "marzipan-and-nothing-else"
FLOWS = """
from retinue import Context, workflow


@workflow
async def works(ctx: Context, word: str) -> str:
    box = await ctx.sandbox("desk", name="desk")
    await box.write("notes.txt", word)
    if word == "wait":
        await ctx.event("go")
    return f"{word} {await box.read('notes.txt')}"
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which tenants acme and zeta have each had a run with a workspace, and acme has a pin, a plain copy
    of its snapshot, and rows in the trace tables."""
    folder = tmp_path_factory.mktemp("tenants") / "ready"
    for name in ("sandbox", "policy"):
        (folder / name).mkdir(parents=True)
    (folder / "retinue.yaml").write_text("principal: bob\nmodules: [erasing_flows]\n", encoding="utf-8")
    (folder / "sandbox" / "desk.yaml").write_text("profile: unconfined\n", encoding="utf-8")
    (folder / "policy" / "all.cedar").write_text('@id("all") permit (principal, action, resource);', encoding="utf-8")
    (folder / "erasing_flows.py").write_text(FLOWS, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with connect_sync(local=True) as client:
            for tenant in ("acme", "zeta"):
                run_id = client.submit("works", SAID, tenant=tenant)
                assert client.wait(run_id, 30).value == f"{SAID} {SAID}"
            until = time.monotonic() + 30
            while client.sql("SELECT count(*) AS n FROM runs").to_pylist() != [{"n": 2}]:
                assert time.monotonic() < until
                time.sleep(0.05)
    finally:
        os.chdir(before)
    asyncio.run(add_to(folder))
    return folder


async def add_to(folder: Path) -> None:
    settings = load_settings(folder)
    store = open_store(settings)
    [kept] = await open_snapshots(settings, store).listed("acme")
    pin = SnapshotPin(
        tenant_id="acme", name="mine", snapshot_id=kept.snapshot_id, manifest="desk", at=now_ns(), by="bob"
    )
    await store.sandbox_records.pin(pin)

    def make(into: Path) -> Tree:
        into.mkdir()
        (into / "notes.txt").write_text(SAID)
        return scan(into)

    with bases_of(settings).held("acme", kept.snapshot_id, make, Event()):
        await store.close()


@pytest.fixture
def project(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, the current folder."""
    shutil.copytree(ready, tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


def in_plain(project: Path) -> list[str]:
    """Files of the data folder in which what was said can be read."""
    data = project / ".retinue"
    found = [path for path in data.rglob("*") if path.is_file() and SAID.encode() in path.read_bytes()]
    return sorted(str(path.relative_to(data)) for path in found)


def runs_of(retinue: Command, tenant: str) -> list[str]:
    return [run["run_id"] for run in retinue("ps", "--tenant", tenant, "--all", "--json").json]


def test_the_content_of_a_tenant_goes_and_that_of_others_stays(retinue: Command, project: Path) -> None:
    acme, zeta = runs_of(retinue, "acme"), runs_of(retinue, "zeta")
    assert [line.split() for line in retinue("tenants", "list").out.splitlines()[1:]] == [
        ["acme", "kept", "1", "0"],
        ["zeta", "kept", "1", "0"],
    ]
    assert any("cache" in name for name in in_plain(project))
    done = retinue("tenants", "erase", "acme", "--yes", "--why", "asked for", "--by", "ana", "--json").json
    assert done["key"] and done["snapshot_bytes"] > 0 and (done["bases"], done["pins"], done["tables"]) == (1, 1, True)
    left = "\n".join(done["left"])
    for words in ("backups and copies of the store", "what has left", "the record that there were runs", "memory of"):
        assert words in left
    assert in_plain(project) == []
    assert not (project / ".retinue" / "keys" / "acme.key").exists()
    assert not (project / ".retinue" / "sandboxes" / "snapshots" / "acme").exists()
    assert retinue("wait", acme[0], "--local", "--json").json.get("output") is None
    assert retinue("wait", zeta[0], "--local", "--json").json["output"] == f"{SAID} {SAID}"
    assert ["acme", "erased", "1", "0"] in [line.split() for line in retinue("tenants", "list").out.splitlines()]
    with connect_sync(local=True) as client:
        until = time.monotonic() + 30
        rows: list[dict[str, object]] = []
        while len(rows) < 2 and time.monotonic() < until:
            query = "SELECT name, facts.event::VARCHAR AS event, facts.by::VARCHAR AS by FROM events"
            rows = client.sql(f"{query} WHERE topic = 'erasure' ORDER BY time").to_pylist()
            time.sleep(0.05)
        assert rows == [{"name": "acme", "event": event, "by": "ana"} for event in ("begun", "erased")]
        assert client.sql("SELECT count(*) AS n FROM runs WHERE tenant_id = 'acme'").to_pylist() == [{"n": 1}]


def test_what_was_erased_is_erased_again_without_harm(retinue: Command, project: Path) -> None:
    assert retinue("tenants", "erase", "acme", "--yes").code == Exit.done
    again = retinue("tenants", "erase", "acme", "--yes")
    assert again.code == Exit.done and "its key was destroyed before" in again.out and "0 bytes" in again.out
    zeta = runs_of(retinue, "zeta")
    assert retinue("wait", zeta[0], "--local", "--json").json["output"] == f"{SAID} {SAID}"


def test_a_tenant_comes_back_with_a_key_of_its_own(retinue: Command, project: Path) -> None:
    assert retinue("tenants", "erase", "acme", "--yes").code == Exit.done
    with connect_sync(local=True) as client:
        assert client.wait(client.submit("works", "new", tenant="acme"), 30).value == "new new"
    assert ["acme", "kept", "2", "0"] in [line.split() for line in retinue("tenants", "list").out.splitlines()]
    assert retinue("tenants", "erase", "acme", "--yes", "--json").json["key"]


def test_the_tenant_of_the_configuration_is_erased_and_its_record_stays(retinue: Command, project: Path) -> None:
    (project / "retinue.yaml").write_text("tenant: acme\nprincipal: bob\nmodules: [erasing_flows]\n", encoding="utf-8")
    assert retinue("tenants", "erase", "acme", "--yes").code == Exit.done
    assert not (project / ".retinue" / "keys" / "acme.key").exists(), "what tells of it needs no key"
    assert "erasure" in retinue("logs", runs_of(retinue, "acme")[0]).out


def test_it_is_refused_while_a_run_goes_on(retinue: Command, project: Path) -> None:
    with connect_sync(local=True) as client:
        run_id = client.submit("works", "wait", tenant="acme")
        until = time.monotonic() + 30
        while client.get(run_id).status is not Status.waiting:
            assert time.monotonic() < until
            time.sleep(0.02)
        said = retinue("tenants", "erase", "acme", "--yes")
        assert said.code == Exit.usage and f"run {run_id} of it has not ended; `retinue cancel RUN`" in said.err
        assert (project / ".retinue" / "keys" / "acme.key").exists()
        assert retinue("cancel", run_id).code == Exit.done
        assert not client.wait(run_id, 30).ok
    done = retinue("tenants", "erase", "acme", "--yes", "--json").json
    assert done["key"] and done["tables"] and in_plain(project) == []


def test_nobody_is_erased_by_mistake(retinue: Command, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = retinue("tenants", "erase", "acme")
    assert said.code == Exit.usage and "nobody can be asked here: say --yes" in said.err
    said = retinue("tenants", "erase", "akme", "--yes")
    assert said.code == Exit.usage and "there is no tenant 'akme'" in said.err
    monkeypatch.setattr(Terminal, "talks", property(lambda self: True))
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "y")
    said = retinue("tenants", "erase", "acme")
    assert said.code == Exit.usage and "can never be read again" in said.err and "backups" in said.err
    assert (project / ".retinue" / "keys" / "acme.key").exists()
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "acme")
    assert retinue("tenants", "erase", "acme").code == Exit.done
    assert not (project / ".retinue" / "keys" / "acme.key").exists()


def test_what_a_backup_holds_back_is_erased_when_the_command_is_given_again(
    retinue: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_PATIENCE", 0.1)
    with guarded(project / ".retinue" / "sandboxes" / "snapshots"):
        said = retinue("tenants", "erase", "acme", "--yes")
        assert said.code != Exit.done and "a backup is being made" in said.err
    assert retinue("tenants", "erase", "acme", "--yes", "--json").json["snapshot_bytes"] > 0
    assert in_plain(project) == []


KILLED = """
import asyncio, importlib, os, signal, sys
module, name, when = sys.argv[1:]
place = importlib.import_module(module)
*way, last = name.split(".")
for part in way:
    place = getattr(place, part)
real = getattr(place, last)

def killed(*given, **named):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(place, last, killed)
from retinue.ingress.cli import main
main(["tenants", "erase", "acme", "--yes"])
"""
POINTS = [
    ("retinue.store.sealing", "KeyFolder.destroy", "before"),
    ("retinue.store.sealing", "KeyFolder.remember", "after"),
    ("retinue.store.sealing", "KeyFolder.destroy", "after"),
    ("retinue.sandbox.bases", "Bases.erase", "before"),
    ("retinue.sandbox.bases", "remove_tree", "after"),
    ("retinue.sandbox.snapshots.objects", "LocalObjects.erase", "before"),
    ("retinue.sandbox.snapshots.objects", "LocalObjects.erase", "after"),
    ("retinue.host.erasing", "remove_tables", "after"),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[1]}-{point[2]}")
def test_killed_anywhere_it_goes_on(point: tuple[str, str, str], retinue: Command, project: Path) -> None:
    with python(KILLED, *point) as other:
        assert other.ended() == -signal.SIGKILL
    assert retinue("tenants", "erase", "acme", "--yes").code == Exit.done
    assert in_plain(project) == []
    names = [path.name for path in (project / ".retinue" / "sandboxes" / "snapshots").iterdir() if path.is_dir()]
    assert names == ["zeta"] and not (project / ".retinue" / "keys" / "acme.key").exists()
    zeta = runs_of(retinue, "zeta")
    assert retinue("wait", zeta[0], "--local", "--json").json["output"] == f"{SAID} {SAID}"


def test_what_may_be_of_the_tenant_is_told(retinue: Command, project: Path) -> None:
    (project / ".retinue" / "sandboxes" / "work" / ("f" * 24) / "1").mkdir(parents=True)
    done = retinue("tenants", "erase", "acme", "--yes", "--json").json
    assert done["left"][0].startswith("1 workspaces that no record tells of and 0 plain copies")


def test_tables_that_another_process_has_are_named(retinue: Command, project: Path) -> None:
    code = "import duckdb, sys\nheld = duckdb.connect(sys.argv[1])\nprint('held', flush=True)\nsys.stdin.readline()"
    with python(code, project / ".retinue" / "traces" / "traces.duckdb") as other:
        assert other.process.stdout is not None and other.process.stdout.readline().strip() in ("held", b"held")
        said = retinue("tenants", "erase", "acme", "--yes")
        assert said.code == Exit.done and "no trace tables" in said.out and "a process has them open" in said.out
