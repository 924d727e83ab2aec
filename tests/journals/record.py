"""Records runs as fixtures: what a version of Retinue wrote, for every later version to replay.

A new version adds its folder: copy the newest one's `definitions.py` and `rows.jsonl` to `vN/`, add to the copy what
the version brought, then run with the code that is to be recorded on the path:

    PYTHONPATH=CHECKOUT/src:CHECKOUT python tests/journals/record.py tests/journals/vN

CHECKOUT may be an older commit: of its tests only `tests/doubles` is used. Folders of released versions are never
recorded again: a difference would go unseen.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import apsw
from tests.doubles.sandboxes import Nodes
from tests.doubles.worlds import World, world

from retinue.host.rows import fingerprint
from retinue.runs.contracts import Json, Status
from retinue.runs.control import RunQuery
from retinue.runs.journal import ENTRIES, SCHEMA
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import NativeTool
from retinue.sessions.sandboxed import sandbox_tools
from retinue.store.statements import migrations

ROOT_RUN = "run-0001"
MOST_RUNS = 10_000
_BOUND = 60.0
KEPT = {"errand": 6, "researcher": 3, "job": 6}
"""Scenarios whose runs the data folder holds, each cut after so many frames."""


def definitions_of(folder: Path) -> ModuleType:
    """The definitions of a folder, loaded anew: nothing has been executed yet."""
    spec = importlib.util.spec_from_file_location(f"journals_{folder.name}", folder / "definitions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def input_of(scenario: dict[str, Any]) -> Json:
    """What the run is given. The rows of a job are read from the current folder."""
    if "job" not in scenario:
        return scenario["input"]
    path = Path("rows.jsonl")
    source = {"path": str(path), "format": "jsonl", "id_field": "id", "limit": None, "fingerprint": fingerprint(path)}
    return {**scenario["job"], "source": source}


async def drive(
    made: World, module: ModuleType, name: str, run_id: str, enough: Callable[[int], bool] | None = None
) -> None:
    """Drive everything until nothing is left to do, saying to it what the scenario says; crash when there are enough
    frames in the store."""
    scenario = module.SCENARIOS[name]
    async with asyncio.timeout(_BOUND):
        while True:
            busy = bool(made.active)
            leased = await made.lease()
            await made.pass_news()
            await asyncio.sleep(0)
            if enough is not None and enough(len(await made.store.tail(0, MOST_RUNS))):
                await made.crash()
                return
            if leased or busy or made.active:
                await asyncio.sleep(0.001)
                continue
            said = await _say(made, scenario, run_id) or await _repair(made, module, scenario, run_id)
            if not said and not await made.wait_out():
                return


async def _say(made: World, scenario: dict[str, Any], run_id: str) -> bool:
    """Answer what is asked and send what is waited for; False when nothing is."""
    answered = False
    for request in await made.store.requests():
        for prompt, value in scenario.get("answers", {}).items():
            if prompt in request.prompt:
                status = "answered" if request.kind == "input" else "approved"
                await made.store.resolve(request.request_id, status, "ben", made.clock(), value)
                answered = True
    record = await made.store.get(run_id)
    if record.status is Status.waiting and record.reason == "event":
        [name] = [key.split("/")[-1].split("#")[0] for key in await _waits(made, run_id)]
        await made.store.signal(run_id, name, scenario["events"][name], made.clock())
        return True
    return answered


async def _repair(made: World, module: ModuleType, scenario: dict[str, Any], run_id: str) -> bool:
    """Retry the run that failed because something was broken, once it no longer is."""
    if "broken" not in scenario or (await made.store.get(run_id)).status is not Status.failed:
        return False
    module.broken.clear()
    await made.retry(run_id)
    return True


async def _waits(made: World, run_id: str) -> tuple[str, ...]:
    return [entry for entry in await made.entries(run_id) if entry.kind == "parked"][-1].waits


async def ends_of(made: World) -> dict[str, Json]:
    """How every run ended, by id."""
    ends: dict[str, Json] = {}
    for record in await made.store.list_runs(RunQuery(limit=MOST_RUNS)):
        branch = await made.store.result(record.run_id)
        ends[record.run_id] = None if branch is None else [branch.status, branch.reason, branch.value]
    return dict(sorted(ends.items()))


async def begun(made: World, module: ModuleType, name: str) -> str:
    """Submit the run of a scenario, with the faults that belong to it."""
    scenario = module.SCENARIOS[name]
    module.faults[:] = scenario.get("faults", [])
    made.script(*module.SCRIPT)
    fields = scenario.get("fields", {})
    if "broken" in scenario:
        module.broken.update(scenario["broken"])
    run_id = await made.submit(scenario["target"], input_of(scenario), **fields)
    if scenario.get("doubted"):
        await _die_in_the_tool(made, module, scenario["stuck"])
    return run_id


async def _die_in_the_tool(made: World, module: ModuleType, name: str) -> None:
    """The owner dies while the tool runs."""
    module.stuck.add(name)
    await made.until(lambda: len([value for value in module.executed if value.startswith(name)]) > 0)
    await made.crash()
    module.stuck.clear()


def furnish(made: World) -> World:
    """With sandboxes, of a manifest `coder`, on a node of its own."""
    nodes = Nodes(made.folder / "nodes", now=made.clock)
    native = [tool for tool in made.registry.tools.values() if isinstance(tool, NativeTool)]
    catalog = Catalog([*native, *sandbox_tools(agents=False)])
    gateway = CapabilityGateway(catalog, made.services.gate, clock=made.clock)
    made.use(gateway=gateway, sandboxes=nodes.node("a"))
    return made


def policy_of(module: ModuleType, name: str) -> dict[str, str]:
    """The policy of a scenario, where it has one of its own."""
    scenario = module.SCENARIOS[name]
    return {"policy": scenario["policy"]} if "policy" in scenario else {}


async def _finished(folder: Path, name: str) -> int:
    """Record a run that nothing disturbs; the number of frames it took."""
    module = definitions_of(folder)
    with tempfile.TemporaryDirectory() as place:
        async with world("sqlite", Path(place), *module.DEFINITIONS, *module.AGENTS, **policy_of(module, name)) as made:
            run_id = await begun(furnish(made), module, name)
            await drive(made, module, name, run_id)
            assert made.failures == [], made.failures
            ends = await ends_of(made)
            await dump(made, folder / f"{name}.jsonl", {"ends": ends})
            return len(await made.store.tail(0, MOST_RUNS))


async def _cut(folder: Path, name: str, number: int, enough: Callable[[int], bool]) -> None:
    """Record a run whose owner dies in the middle; how it ends is written beside it."""
    module = definitions_of(folder)
    scenario = module.SCENARIOS[name]
    path = folder / f"{name}-cut{number}.jsonl"
    with tempfile.TemporaryDirectory() as place:
        async with world("sqlite", Path(place), *module.DEFINITIONS, *module.AGENTS, **policy_of(module, name)) as made:
            run_id = await begun(furnish(made), module, name)
            if "stuck" in scenario and not scenario.get("doubted"):
                await _die_in_the_tool(made, module, scenario["stuck"])
            else:
                await drive(made, module, name, run_id, enough)
            await dump(made, path, {"cut": True})
            module.faults.clear()
            await drive(made, module, name, run_id)
            ends = await ends_of(made)
    undisturbed = json.loads((folder / f"{name}.jsonl").read_text().splitlines()[0])["ends"]
    assert scenario.get("resumed") or ends == undisturbed, (name, ends, undisturbed)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([_line(json.loads(lines[0]) | {"ends": ends}), *lines[1:]]) + "\n")


async def dump(made: World, path: Path, facts: dict[str, Json]) -> None:
    """Write everything the store knows, opened, one row or frame a line."""
    tables = await made.store._read(lambda connection: {name: _rows(connection, name) for name in _TABLES})  # type: ignore[union-attr]
    codec = made.store._codec  # type: ignore[union-attr]
    head = {"store": len(migrations()), "entries": SCHEMA, "clock": made.clock.now, **facts}
    lines = [_line(head)]
    for name, rows in tables.items():
        for row in rows:
            for column in ("sealed", "answer"):
                if column in row:
                    bound = _bound(name, row)
                    row[column] = codec.open("acme", row[column], bound)
            lines.append(_line({name: row}))
    for frame in await made.store.tail(0, MOST_RUNS):
        row = {"seq": frame.seq, "run_id": frame.run_id, "position": frame.position, "epoch": frame.epoch}
        listed = ENTRIES.dump_python(frame.entries, mode="json")
        lines.append(_line({"frame": row | {"facts": listed, "contents": [entry.content for entry in frame.entries]}}))
    await asyncio.to_thread(path.write_text, "\n".join(lines) + "\n")


_TABLES = ("runs", "groups", "requests", "events", "dead_letters")


def _bound(table: str, row: dict[str, Any]) -> str:
    """What a sealed column was sealed to."""
    if table == "requests":
        return str(row["request_id"])
    return f"event:{row['run']}" if table == "events" else f"{row['source']}:{row['line']}"


def _rows(connection: apsw.Connection, table: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY num")
    found = []
    for row in cursor:
        names = [column[0] for column in cursor.get_description()]
        found.append(dict(zip(names, row, strict=True)))
    return found


def _line(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), default=lambda part: part.model_dump(mode="json"))


async def _data_folder(folder: Path) -> None:
    """A data folder with runs that are cut in the middle, as `VACUUM INTO` copies it, and its keys."""
    module = definitions_of(folder)
    target = folder / "data"
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        async with world("sqlite", Path(place), *module.DEFINITIONS, *module.AGENTS) as made:
            for name, most in KEPT.items():
                run_id = await begun(made, module, name)
                before = len(await made.store.tail(0, MOST_RUNS))
                await drive(made, module, name, run_id, lambda count, most=before + most: count >= most)
            copy = Path(place) / "copy.db"
            await made.store._read(lambda c: c.execute("VACUUM INTO ?", (str(copy),)).fetchall())  # type: ignore[union-attr]
        shutil.copytree(Path(place) / "data" / "keys", target / "keys")
        (target / "store.db.gz").write_bytes(gzip.compress(copy.read_bytes(), 9, mtime=0))


async def record(folder: Path) -> None:
    """Record all scenarios of a folder."""
    for name, scenario in definitions_of(folder).SCENARIOS.items():
        frames = await _finished(folder, name)
        cuts = [1] if "stuck" in scenario and not scenario.get("doubted") else [frames // 3, 2 * frames // 3]
        for number, most in enumerate(cuts, start=1):
            await _cut(folder, name, number, lambda count, most=most: count >= most)
        print(f"{name}: {frames} frames")
    await _data_folder(folder)


if __name__ == "__main__":
    wanted = Path(sys.argv[1]).resolve()
    os.chdir(wanted)
    asyncio.run(record(wanted))
