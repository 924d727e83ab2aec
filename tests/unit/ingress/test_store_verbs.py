"""`retinue store copy`, `backup` and `restore` of a shared store, and what `doctor` says of its server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.doubles.places import Place, Places
from tests.doubles.postgres import PostgresServer
from tests.doubles.shapes import START, host, new_run, own
from tests.unit.ingress.conftest import Command

from retinue.host import opening
from retinue.host.opening import open_store
from retinue.host.sandboxes import open_snapshots
from retinue.host.settings import load_settings
from retinue.ingress.exits import Exit
from retinue.runs.control import RunQuery
from retinue.store.postgres.copying import postgres_target
from retinue.store.postgres.dialect import migrations

pytestmark = pytest.mark.rule("R16")

SECRET = "hunter2-do-not-tell"


@pytest.fixture
def shared(places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty project, the current folder, whose store is a database."""
    monkeypatch.setenv("DB_KEY", "a key")
    with places.new("postgres") as place:
        (folder / "retinue.yaml").write_text(f"store: {place.url}\nstore_key: ${{DB_KEY}}\n", encoding="utf-8")
        yield place


async def fill(place: Place) -> None:
    """A run that has ended and two that have not; who works on one of them lives."""
    store = await asyncio.to_thread(place.open, key="${DB_KEY}") if place.url else place.open()
    await store.register(host("h1"))
    await store.submit([new_run("done", "marzipan"), new_run("open", "x" * 100_000), new_run("busy")])
    await (await own(store, "done")).finish("marzipan")
    await own(store, "busy")
    await store.close()


async def records(place: Place) -> dict[str, tuple[str, bool]]:
    store = await asyncio.to_thread(place.open, key="${DB_KEY}") if place.url else place.open()
    found = {each.run_id: (each.status.value, each.held) for each in await store.list_runs(RunQuery())}
    await store.close()
    return found


HELD = {"done": ("completed", False), "open": ("queued", True), "busy": ("queued", True)}


def test_a_store_moves_to_a_server_and_back(retinue: Command, shared: Place, folder: Path) -> None:
    file = Place("sqlite", folder)
    asyncio.run(fill(file))
    said = retinue("store", "copy", "--from", "sqlite:data", "--to", shared.url, "--json")
    assert said.code == Exit.done, said.out
    tables = {table["name"]: table for table in said.json["tables"]}
    assert (said.json["held"], said.json["again"], tables["runs"]["rows"]) == (2, False, 3)
    assert len(tables["journal"]["hash"]) == 64 and tables["keys"]["rows"] == tables["blobs"]["rows"] == 1
    assert asyncio.run(records(shared)) == HELD
    again = retinue("store", "copy", "--from", "sqlite:data", "--to", shared.url)
    assert again.code == Exit.done and "was copied before and is the same; 2 runs held in it" in again.out
    assert f"runs 3 {tables['runs']['hash'][:16]}" in [" ".join(line.split()) for line in again.out.splitlines()]
    back = retinue("store", "copy", "--from", shared.url, "--to", "sqlite:back/data")
    assert back.code == Exit.done, back.err
    assert asyncio.run(records(Place("sqlite", folder / "back"))) == HELD


def test_a_move_that_keeps_running_waits_for_hosts_to_stop(retinue: Command, shared: Place) -> None:
    asyncio.run(fill(shared))
    said = retinue("store", "copy", "--from", shared.url, "--to", "sqlite:data", "--keep-running")
    assert said.code == Exit.runtime and "hosts use postgresql://127.0.0.1" in said.err and "(1 alive)" in said.err


def test_a_key_is_a_reference(retinue: Command, folder: Path) -> None:
    given = ("--from", "postgresql://ana@here/db", "--to", "sqlite:data", "--from-key", SECRET)
    said = retinue("store", "copy", *given)
    assert said.code == Exit.usage and SECRET not in said.err + said.out
    assert "--from-key must name a variable of the environment" in said.err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("mysql://root@here/db", "--from names no store: write sqlite:FOLDER"),
        (f"postgresql://ana:{SECRET}@here/db", "--from holds a password; name a variable of the environment"),
        ("sqlite:nowhere", "nowhere has no store: nothing is to be copied"),
        ("postgresql://ana:${UNSET_PASSWORD}@here/db", "UNSET_PASSWORD is not set in this process"),
    ],
)
def test_a_source_that_is_none_is_refused(retinue: Command, folder: Path, given: str, told: str) -> None:
    said = retinue("store", "copy", "--from", given, "--to", "sqlite:data")
    assert said.code == Exit.usage and told in said.err and SECRET not in said.err + said.out
    assert not (folder / "data" / "store.db").exists()


def test_a_backup_of_a_shared_store_fills_an_empty_database(
    retinue: Command, shared: Place, places: Places, folder: Path
) -> None:
    asyncio.run(fill(shared))
    note = folder / ".retinue" / "jobs" / "one.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}", encoding="utf-8")
    made = retinue("backup", "copy", "--json")
    assert made.code == Exit.done, made.out
    assert (made.json["runs"], made.json["blobs"], made.json["keys"]) == (3, 1, True)
    assert retinue("backup", "copy").code == Exit.usage
    note.unlink()
    content = {path: path.read_bytes() for path in (folder / "copy").rglob("*") if path.is_file()}
    full = retinue("restore", "copy")
    assert full.code == Exit.usage and "holds a store already (table runs): name an empty database" in full.err
    with places.new("postgres") as other:
        (folder / "retinue.yaml").write_text(f"store: {other.url}\nstore_key: ${{DB_KEY}}\n", encoding="utf-8")
        back = retinue("restore", "copy", "--json")
        assert back.code == Exit.done, back.out
        assert back.json["held"] == 2 and back.json["store"] == str(other.url).rpartition("@")[2]
        assert asyncio.run(records(other)) == HELD and note.read_text("utf-8") == "{}"
    assert content == {path: path.read_bytes() for path in (folder / "copy").rglob("*") if path.is_file()}
    (folder / "retinue.yaml").write_text("data: data\n", encoding="utf-8")
    assert retinue("restore", "copy").code == Exit.done, "a backup fits a data folder too"
    assert asyncio.run(records(Place("sqlite", folder))) == HELD


def test_a_backup_of_a_shared_store_without_keys_says_nothing(retinue: Command, shared: Place, folder: Path) -> None:
    asyncio.run(fill(shared))
    assert retinue("backup", "copy", "--without-keys").code == Exit.done
    assert not (folder / "copy" / "keys").exists()
    said = b"".join(path.read_bytes() for path in (folder / "copy").rglob("*") if path.is_file())
    assert b"marzipan" not in said


@pytest.mark.promise("K3")
def test_doctor_looks_at_the_server(retinue: Command, shared: Place) -> None:
    checks = {check["name"]: check for check in retinue("doctor", "--json").json["checks"]}
    assert checks["store"]["ok"] and "no store in it yet: the first process" in checks["store"]["said"]
    asyncio.run(fill(shared))
    said = retinue("doctor", "--json")
    assert said.code == Exit.done
    checks = {check["name"]: check for check in said.json["checks"]}
    assert checks["store"]["said"].startswith("PostgreSQL ")
    assert f", schema {len(migrations())}, clocks 0." in checks["store"]["said"]
    assert checks["store keys"]["said"] == "1 keys, all wrapped with `store_key`"
    assert "are let in by the server, 36 needed" in checks["connections"]["said"]
    areas = {area["name"]: area for area in said.json["readiness"]}
    assert areas["state"]["state"].startswith("PostgreSQL at 127.0.0.1") and areas["state"]["decision"] == "your part"


@pytest.mark.promise("K3")
def test_doctor_tells_what_a_server_is_not_fit_for(
    retinue: Command, shared: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "retinue.yaml").write_text(f"store: {shared.url}\nactors: {{workers: 1000}}\n", encoding="utf-8")
    ahead = START + 10 * 365 * 86_400 * 1_000_000_000
    monkeypatch.setattr(opening, "now_ns", lambda: ahead)
    said = retinue("doctor", "--json")
    checks = {check["name"]: check for check in said.json["checks"]}
    assert said.code == Exit.failed
    assert not checks["store"]["ok"] and "let both follow a time server" in checks["store"]["said"]
    assert not checks["connections"]["ok"] and "raise its max_connections" in checks["connections"]["said"]
    assert checks["store keys"]["said"].startswith("warning: keys will be in the database as they are")


@pytest.mark.promise("K3")
def test_doctor_tells_of_a_store_that_is_being_filled_or_newer(retinue: Command, shared: Place, folder: Path) -> None:
    assert shared.url is not None
    with postgres_target(shared.url) as target:
        target.begin("another", [])
    assert "a copy into 127.0.0.1" in retinue("doctor").out
    refused = retinue("ps")
    assert refused.code == Exit.runtime and "a copy into this store has not ended" in refused.err
    with psycopg.connect(shared.url) as connection:
        connection.execute("UPDATE meta SET value = '77' WHERE name = 'schema'")
    assert f"has schema 77, this version knows {len(migrations())}: use the newer Retinue" in retinue("doctor").out


@pytest.mark.promise("K3")
def test_doctor_says_when_nobody_answers_and_tells_no_password(
    retinue: Command, postgres: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    (folder / "retinue.yaml").write_text("store: postgresql://ana:${DB_PASSWORD}@127.0.0.1:1/db\n", encoding="utf-8")
    said = retinue("doctor")
    assert said.code == Exit.failed and "FAIL  store          the database of the store cannot be reached" in said.out
    assert SECRET not in said.out + said.err


@pytest.mark.promise("E3")
def test_a_backup_of_a_shared_store_has_the_snapshots_of_this_machine(
    retinue: Command, shared: Place, places: Places, folder: Path
) -> None:
    async def take() -> str:
        settings = load_settings(folder)
        store = open_store(settings)
        try:
            return (await open_snapshots(settings, store).take(folder / "work", "acme")).snapshot_id
        finally:
            await store.close()

    (folder / "work").mkdir()
    (folder / "work" / "a").write_text("of this machine", encoding="utf-8")
    taken = asyncio.run(take())
    assert retinue("backup", "copy", "--json").json["snapshots"]["snapshots"] == 1
    with places.new("postgres") as other:
        text = f"store: {other.url}\nstore_key: ${{DB_KEY}}\nsandbox: {{snapshots: 'file:///elsewhere'}}\n"
        (folder / "retinue.yaml").write_text(text, encoding="utf-8")
        said = retinue("restore", "copy")
        assert said.code == Exit.usage and "has snapshots of another store" in said.err
        shutil.rmtree(folder / ".retinue")
        said = retinue("restore", "copy")
        assert said.code == Exit.done and "where `sandbox.snapshots: file:///elsewhere` does not look" in said.err
        (folder / "retinue.yaml").write_text(f"store: {other.url}\nstore_key: ${{DB_KEY}}\n", encoding="utf-8")
        assert retinue("sandbox", "diff", taken, taken, "--tenant", "acme").out == "no difference\n"
