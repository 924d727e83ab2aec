"""Signal, inbox, inspect, ps and diff on a project as `init` makes it, and what the light verbs do not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit
from retinue.ingress.sync import connect_sync
from retinue.ingress.verbs.init import make_project
from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery

FLOWS = """
from retinue import Context, workflow


@workflow
async def part(ctx: Context, number: int) -> int:
    if number == 0:
        raise ValueError("part 0 is broken")
    return number if number < 3 else await ctx.event("go")


@workflow
async def whole(ctx: Context, parts: int, state: list[int] | None) -> list[int]:
    if state is None:
        await ctx.ask("Begin?")
        await ctx.checkpoint("begun", [parts])
    branches = await ctx.map(part, list(range(parts)))
    return [branch.value for branch in branches if branch.ok]
"""
BUSY = {Status.queued, Status.in_progress}
HEAVY = {"ray", "cedarpy", "duckdb", "pyarrow", "httpx", "mcp", "opentelemetry", "genai_prices", "rich"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for the module (its modules are imported once a process); it is the current folder."""
    folder = tmp_path_factory.mktemp("waiting") / "mine"
    make_project(folder)
    (folder / "waiting_flows.py").write_text(FLOWS, encoding="utf-8")
    settings = (
        (folder / "retinue.yaml").read_text("utf-8").replace("modules: [agents]", "modules: [agents, waiting_flows]")
    )
    assert "waiting_flows" in settings
    (folder / "retinue.yaml").write_text(settings, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def begun(retinue: Command, parts: int) -> str:
    """A run of `whole` that has asked its question and been answered, and waits for the parts that wait."""
    said = retinue("run", "whole", "--input", str(parts), "--local", "--json")
    assert said.code == Exit.asks
    [request] = said.json["requests"]
    assert retinue("answer", request["request_id"], "yes").code == Exit.done
    run_id = str(said.json["run_id"])
    deadline = time.monotonic() + 30
    with connect_sync(local=True) as client:
        while any(record.status in BUSY for record in client.runs(RunQuery(root_run_id=run_id, limit=50))):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    return run_id


@pytest.fixture
def waiting(retinue: Command, project: Path) -> Iterator[str]:
    """A run with five parts: one has failed, two have ended, two wait for an event."""
    run_id = begun(retinue, 5)
    yield run_id
    retinue("cancel", run_id)


@pytest.mark.promise("C2")
def test_inspect_names_checkpoint_join_state_and_waits(retinue: Command, waiting: str) -> None:
    seen = retinue("inspect", waiting, "--tree", "--json").json
    assert (seen["boundary"]["name"], seen["boundary"]["number"]) == ("begun", 1)
    [group] = seen["children"]
    assert group["text"] == "3 of 5 done, 1 failed, 2 waiting"
    [waits] = seen["waits"]
    assert (waits["kind"], waits["name"], waits["why"]) == ("child", "part", f"all must end: {group['text']}")
    assert seen["finished_before"] == 1
    assert [child["status"] for child in seen["tree"]["children"]].count("waiting") == 2
    text = retinue("inspect", waiting, "--tree")
    assert f"checkpoint begun 1, position {seen['boundary']['position']}: replay starts here" in text.out
    assert max(map(len, text.out.splitlines())) <= 100


@pytest.mark.promise("C2")
def test_inspect_of_a_failed_run_says_what_helps(retinue: Command, waiting: str) -> None:
    [failed] = retinue("ps", "--parent", waiting, "--status", "failed", "--json").json
    text = retinue("inspect", failed["run_id"]).out
    assert "part 0 is broken" in text
    assert "what helps" in text


@pytest.mark.promise("B4")
def test_an_event_is_listed_with_the_command_that_ends_the_wait(retinue: Command, waiting: str) -> None:
    found = retinue("inbox", waiting, "--json").json
    events = [one for one in found["waits"] if one["kind"] == "event"]
    assert [one["path"][-1]["target"] for one in events] == ["part", "part"]
    assert {one["goal"] for one in events} == {5}
    [command, _] = [command for one in events for command in one["commands"]]
    words = command.replace("'{...}'", "7").split()
    assert words[:2] == ["retinue", "signal"]
    assert "it does not wait" not in retinue(*words[1:]).out
    assert len([one for one in retinue("inbox", waiting, "--json").json["waits"] if one["kind"] == "event"]) == 1
    assert waiting not in {one["root_run_id"] for one in retinue("inbox", "--json").json["waits"]}
    assert waiting in {one["root_run_id"] for one in retinue("inbox", "--all", "--json").json["waits"]}


def test_the_inbox_says_how_much_it_left_out(retinue: Command, project: Path) -> None:
    runs = [retinue("run", "whole", "--input", "1", "--local", "--json").json["run_id"] for _ in range(3)]
    said = retinue("inbox", "--limit", "1")
    assert "… and 2 more" in said.out
    assert retinue("inbox", "--limit", "2", "--json").json["more"] == 1
    for run in runs:
        retinue("cancel", run)
    assert retinue("inbox").out == "nothing is asked\n"


def test_a_signal_nobody_waits_for_is_kept(retinue: Command, project: Path) -> None:
    run = retinue("run", "whole", "--input", "1", "--local", "--json").json["run_id"]
    said = retinue("signal", run, "later", "--text", "hello", "--json").json
    assert said == {"run_id": run, "event": "later", "value": "hello", "awaited": False}
    assert "it does not wait for that now and keeps it" in retinue("signal", run[-12:], "later").out
    retinue("cancel", run)


@pytest.mark.promise("A9")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody", "go", "1"), "there is no run 'nobody'"),
        (("RUN", "go", "{half"), "is not JSON"),
        (("RUN", "go", "1", "--text", "one"), "give either JSON or --text TEXT"),
        (("RUN", " ", "1"), "the event's name is empty"),
        (("ENDED", "go", "1"), "has ended and takes no events"),
    ],
)
def test_a_signal_that_cannot_be_is_refused(
    retinue: Command, project: Path, arguments: tuple[str, ...], words: str
) -> None:
    run = retinue("run", "whole", "--input", "1", "--local", "--json").json["run_id"]
    if arguments[0] == "ENDED":
        retinue("cancel", run)
    said = retinue("signal", *(run if word in {"RUN", "ENDED"} else word for word in arguments))
    assert (said.code, words in said.err) == (Exit.usage, True)
    retinue("cancel", run)


@pytest.mark.promise("A9")
def test_the_synchronous_client_has_the_same_verbs(retinue: Command, waiting: str) -> None:
    with connect_sync(start=False) as client:
        waits = [one for one in client.pending(waiting).waits if one.kind == "event"]
        client.signal(waits[0].run_id, "go", {"number": 1})
        assert client.inspect(waiting).boundary.name == "begun"
        children = [one.run_id for one in waits]
        assert client.diff(*children).comparison.facts["changed"] == 0


def test_ps_shows_trees_and_what_waits(retinue: Command, waiting: str) -> None:
    tree = retinue("ps", "--tree", "--limit", "1").out.splitlines()
    assert tree[0].startswith(waiting[-12:])
    assert [line.split()[1:3] for line in tree[1:3]] == [["part", "waiting"], ["part", "waiting"]]
    assert len(tree) == 6
    [nested] = retinue("ps", "--tree", "--limit", "1", "--json").json
    assert len(nested["children"]) == 5
    parked = retinue("ps", "--waiting", "--limit", "3", "--json").json
    assert [one["status"] for one in parked] == ["waiting"] * 3


def test_ps_lists_the_rows_of_a_job(retinue: Command, project: Path) -> None:
    (project / "parts.jsonl").write_text("1\n2\n")
    given = ("batch", "part", "--input", "parts.jsonl", "--output", "parts.out.jsonl", "--local")
    assert retinue(*given).code == Exit.done
    [job] = retinue("ps", "--limit", "1", "--json").json
    rows = retinue("ps", "--job", job["run_id"][-12:], "--json").json
    assert {row["parent_run_id"] for row in rows} == {job["run_id"]}
    assert len(rows) == 2


@pytest.mark.promise("I7")
def test_diff_finds_the_child_that_differs(retinue: Command, project: Path) -> None:
    runs = []
    for parts in ("2", "3"):
        run = retinue("run", "whole", "--input", parts, "--local", "--json").json
        retinue("answer", run["requests"][0]["request_id"], "yes")
        assert retinue("wait", run["run_id"], "--local").code == Exit.done
        runs.append(run["run_id"])
    found = retinue("diff", *runs, "--children", "--json").json
    assert (found["same"], found["changed"], found["only_one"], found["only_other"]) == (1, 1, 0, 0)
    assert found["output"] == [" [", "-  1", "+  1,", "+  2", " ]"]
    children = {pair["index"]: pair for pair in found["children"]}
    assert children[1]["difference"]["changed"] == 0
    assert (children[2]["run_ids"][0], children[2]["difference"]) == (None, None)
    text = retinue("diff", *runs, "--children").out
    assert "child 2 of 1/part#0: only in the second" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "are the same run" in retinue("diff", runs[0], runs[0]).err


@pytest.mark.parametrize(
    "verb", ["ps", "inspect", "inbox", "signal", "diff", "logs", "cancel", "pause", "retry", "dlq"]
)
def test_a_verb_that_needs_only_the_store_loads_nothing_heavy(verb: str, tmp_path: Path) -> None:
    code = f"import json, sys, retinue.ingress.verbs.{verb}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    loaded: list[Any] = json.loads(done.stdout)
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
