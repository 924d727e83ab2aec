"""Sandboxes that are real: runs over the room as a host puts it together, with confined programs and real snapshots."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.projects import project
from tests.doubles.worlds import ALLOW_ALL, World, calls, world
from tests.unit.runs.sandboxing import moves, shell, told

from retinue.host.composition import load_project
from retinue.host.sandboxes import open_sandboxes
from retinue.host.sandboxing import enforcement
from retinue.policy.rules import DEFAULTS
from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import Definition, agent, workflow
from retinue.runs.errors import ConfigError, PermanentError
from retinue.runs.journal import Record
from retinue.sandbox.profiles import STRICT
from retinue.sandbox.room import Room
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.sandboxed import sandbox_tools
from retinue.store.sqlite import SqliteStore

pytestmark = [
    pytest.mark.promise("E1", "E2", "E4"),
    pytest.mark.rule("R5"),
    pytest.mark.usefixtures("tested_once"),
]

SLOW = "echo 2 >> log; sleep 1"
MANIFEST = "profile: strict\nfiles:\n  readme.md: Read me.\n"


@asynccontextmanager
async def roomy(folder: Path, *definitions: Definition, policy: str = ALLOW_ALL) -> AsyncIterator[World]:
    """A world with the real room."""
    async with world("sqlite", folder, *definitions, policy=policy) as made:
        (folder / "sandbox").mkdir(exist_ok=True)
        (folder / "sandbox" / "coder.yaml").write_text(MANIFEST)
        gateway = CapabilityGateway(Catalog(sandbox_tools(agents=True)), made.services.gate, clock=made.clock)
        made.use(gateway=gateway, sandboxes=room_of(made, folder))
        try:
            yield made
        finally:
            await made.crash()
            assert made.services.sandboxes is not None
            await made.services.sandboxes.close()


def room_of(made: World, folder: Path) -> Room:
    """The room of a process on this node."""
    assert isinstance(made.store, SqliteStore)
    return open_sandboxes(project(folder, policy=ALLOW_ALL), made.store)


async def die(made: World, folder: Path, elsewhere: bool) -> None:
    """The owner dies; the next one has a room of its own, and where it is `elsewhere` no workspace."""
    await made.crash()
    assert made.services.sandboxes is not None
    await made.services.sandboxes.close()
    if elsewhere:
        shutil.rmtree(work(folder))
    made.use(sandboxes=room_of(made, folder))


def work(folder: Path) -> Path:
    """Where the node has its workspaces."""
    [found] = [one for one in folder.rglob("sandboxes/work") if one.is_dir()]
    return found


@pytest.fixture(scope="module")
def enforced(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip, by name, where no backend meets the profile."""
    try:
        asyncio.run(enforcement(project(tmp_path_factory.mktemp("probe")), STRICT))
    except PermanentError as error:
        pytest.skip(f"profile strict cannot be enforced here: {error}")


@workflow
async def steps(ctx: Context, given: dict[str, Any]) -> Any:
    box = await ctx.sandbox("coder")
    await box.shell("echo 1 >> log")
    await box.snapshot()
    await box.write("data.bin", bytes(range(256)))
    said = ""
    try:
        await box.shell(SLOW, replayable=given.get("replayable"))
    except PermanentError as error:
        said = error.code
    seen = await box.shell("cat readme.md; id -u; ls /root /home 2>&1 | head -c 200; cat log")
    return [said, await box.read("log"), await box.read("data.bin") == bytes(range(256)), seen.exit_code]


@pytest.mark.usefixtures("enforced")
@pytest.mark.parametrize(("replayable", "elsewhere"), [(True, True), (False, False)])
async def test_a_real_workspace_is_as_the_journal_says(replayable: bool, elsewhere: bool, tmp_path: Path) -> None:
    async with roomy(tmp_path, steps) as made:
        run_id = await made.submit(steps, {"replayable": replayable})

        def begun() -> bool:
            return any("2" in one.read_text() for one in tmp_path.rglob("tree/log"))

        await made.until(begun)
        await die(made, tmp_path, elsewhere)
        result = await made.finish(run_id)
        assert result.value == (["", "1\n2\n", True, 0] if replayable else ["lost_exec", "1\n", True, 0])
        assert (await moves(made, run_id))[:4] == ["opened", "snapshot", "lost_exec", "restored"]
        record = (await told(made, run_id))[0]
        assert record.facts["backend"] and record.facts["confinement"]["files"] == "enforced"
        assert made.failures == []
        assert not any(work(tmp_path).rglob("tree")), "the run has ended, and its workspaces are gone"


@workflow
async def attempt(ctx: Context, given: dict[str, Any]) -> Any:
    box = await ctx.sandbox("coder", given["snapshot"])
    await box.shell(f"echo try {given['n']} >> log")
    return await box.snapshot()


@workflow
async def best_of(ctx: Context, count: int, state: dict[str, Any] | None = None) -> Any:
    box = await ctx.sandbox("coder", name="work")
    if state is None:
        await box.shell("echo begun > log")
        await ctx.checkpoint("begun", {})
    snapshot = await box.snapshot()
    branches = await ctx.map(attempt, [{"snapshot": snapshot, "n": n} for n in range(count)])
    await box.adopt(branches[1].value)
    copies = await box.fork(2)
    await asyncio.gather(*(copy.shell(f"echo {n} >> log") for n, copy in enumerate(copies)))
    return [await one.read("log") for one in (box, *copies)]


@pytest.mark.usefixtures("enforced")
async def test_children_and_forks_work_apart(tmp_path: Path) -> None:
    async with roomy(tmp_path, best_of, attempt) as made:
        result = await made.run(best_of, 3)
        assert result.value == ["begun\ntry 1\n", "begun\ntry 1\n0\n", "begun\ntry 1\n1\n"], result.problem


@workflow
async def large(ctx: Context, _: Any) -> Any:
    box = await ctx.sandbox("coder")
    await box.write("large", "swordfish" + "." * 1_100_000 + "end")
    return await box.read("large")


@pytest.mark.usefixtures("enforced")
async def test_a_file_with_a_secret_that_is_read_in_parts_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "swordfish")
    async with roomy(tmp_path, large) as made:
        (tmp_path / "sandbox" / "coder.yaml").write_text(MANIFEST + "environment: {TOKEN: '${TOKEN}'}\n")
        result = await made.run(large, None)
        assert result.value == "[TOKEN]" + "." * 1_100_000 + "end"


coder = agent("coder", "Write programs.", sandbox="coder")


@pytest.mark.usefixtures("enforced")
async def test_an_agent_works_in_a_real_sandbox_under_the_shipped_rules(tmp_path: Path) -> None:
    async with roomy(tmp_path, coder, policy=DEFAULTS.read_text()) as made:
        made.decide(
            calls("write_file", path="add.py", content="print(20 + 22)\n"),
            calls("python", code="import runpy; runpy.run_path('add.py')"),
            shell("cat /etc/shadow; echo $?; echo more >> add.py; sleep 1"),
            calls("edit_file", path="add.py", old="more\n", new=""),
            calls("list_files"),
            {"answer": "done"},
        )
        run_id = await made.submit(coder, "add")
        await made.until(lambda: any("more" in one.read_text() for one in tmp_path.rglob("tree/add.py")))
        await die(made, tmp_path, elsewhere=True)
        result = await made.finish(run_id)
        assert (result.status, result.value) == (Status.completed, "done"), result.problem
        entries = await made.entries(run_id)
        seen = [one.content["data"] for one in entries if isinstance(one, Record) and one.topic == "observation"]
        assert seen[1]["stdout"] == "42\n" and "root:" not in str(seen[2])
        assert {entry["path"]: entry["size"] for entry in seen[4]["entries"]} == {"add.py": 15, "readme.md": 8}


def test_a_project_whose_agent_wants_a_manifest_that_is_not_there_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('from retinue import agent\nit = agent("it", "Work.", sandbox="coder")\n')
    settings = project(tmp_path, modules=["mine"])
    with pytest.raises(ConfigError, match=r"agent 'it': sandbox='coder'.*there is no sandbox manifest 'coder'"):
        load_project(settings)
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "coder.yaml").write_text("profile: strict\n")
    found = load_project(settings)
    assert "shell" in {one.name for one in found.capabilities}
