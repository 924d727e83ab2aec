"""Pause, resume, retry, fork and dlq as typed: what they say, what comes of it, and what they refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.projects import ALLOW_ALL, script
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit
from retinue.ingress.sync import connect_sync
from retinue.runs.contracts import Budget, Status
from retinue.runs.forking import Given

pytestmark = pytest.mark.promise("A9")

FLOWS = """
from pathlib import Path

from retinue import Context, agent, tool, workflow
from retinue.runs.errors import PermanentError

HERE = Path(__file__).parent


@tool(side_effect="write", idempotency="idempotent")
def post(text: str, *, key: str) -> str:
    \"\"\"Posts.\"\"\"
    with (HERE / "posted").open("a") as file:
        file.write(f"{text} {key}\\n")
    return text


@tool(side_effect="read")
def look(text: str) -> str:
    \"\"\"Looks.\"\"\"
    if text.startswith("bad") and not (HERE / "repaired").exists():
        raise PermanentError(f"no map of {text}", code="missing")
    return text.upper()


@workflow(queue="maps")
async def line(ctx: Context, text: str) -> str:
    await ctx.call(post, text=text)
    return await ctx.call(look, text=text)


@workflow
async def lines(ctx: Context, texts: list[str]) -> list[str]:
    return [await ctx.run(line, text) for text in texts]


@workflow
async def one(ctx: Context, number: int) -> int:
    return number


@workflow
async def many(ctx: Context, count: int) -> str:
    branches = await ctx.map(one, list(range(count)))
    return await ctx.call(look, text=f"{sum(branch.value for branch in branches)}")


@workflow
async def patient(ctx: Context, text: str) -> str:
    return text + await ctx.ask("And?")


@workflow
async def pages(ctx: Context, last: int, state: int | None) -> int:
    page = state or 0
    return page if page == last else await ctx.checkpoint("page", page + 1)


@workflow(version="1")
async def pinned(ctx: Context, text: str) -> str:
    return await ctx.call(look, text=text)
"""
SETTINGS = {
    "modules": ["steering_flows"],
    "default_model": "scripted:model.jsonl",
    "limits": {"queues": {"maps": {"concurrency": 8}}},
}


@pytest.fixture(scope="module")
def module_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for the module (its modules are imported once a process); it is the current folder."""
    folder = tmp_path_factory.mktemp("steering") / "mine"
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "rules.cedar").write_text(ALLOW_ALL)
    script(folder)
    (folder / "steering_flows.py").write_text(FLOWS)
    (folder / "retinue.yaml").write_text(json.dumps(SETTINGS))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture
def project(module_project: Path) -> Path:
    """The project, nothing repaired and nothing posted."""
    for name in ("repaired", "posted"):
        (module_project / name).unlink(missing_ok=True)
    return module_project


def repair(project: Path) -> None:
    """The cause of the failures is gone."""
    (project / "repaired").touch()


def failed(retinue: Command, target: str, value: object, *more: str) -> str:
    """A run that has failed; its id."""
    said = retinue("run", target, "--input", json.dumps(value), "--local", "--json", *more)
    assert said.code == Exit.failed
    return str(said.json["run_id"])


def completed(retinue: Command, target: str, value: object) -> str:
    """A run that has completed; its id."""
    said = retinue("run", target, "--input", json.dumps(value), "--local", "--json")
    assert said.code == Exit.done
    return str(said.json["run_id"])


def record(retinue: Command, run_id: str) -> dict[str, object]:
    """The record of a run."""
    return dict(retinue("inspect", run_id, "--json").json["record"])


# -- pause and resume --------------------------------------------------------------------------------------


def test_a_held_run_is_shown_and_waited_for_no_longer_than_needed(retinue: Command, project: Path) -> None:
    run = retinue("run", "patient", "x", "--local", "--json").json
    [request] = run["requests"]
    name = run["run_id"][-12:]
    assert f"1 run held; `retinue resume {name}`" in retinue("pause", name).out
    assert f"run {name} was held already" in retinue("pause", name).out
    assert "waiting_for_input, held" in retinue("ps").out
    assert "waiting_for_input, held (input_required)" in retinue("inspect", name).out
    asked = retinue("inbox", name)
    assert "(depth 0, held)" in asked.out and f"`retinue resume {name}`" in asked.out
    retinue("answer", request["request_id"], "y")
    assert "queued, held" in retinue("ps", "--tree").out
    waited = retinue("wait", name, "--local")
    assert (waited.code, f"it is held: `retinue resume {name}`" in waited.err) == (Exit.asks, True)
    assert retinue("wait", name, "--local", "--json").json["held"] is True
    assert "1 run let go" in retinue("resume", name).out
    assert f"run {name} was not held" in retinue("resume", name).out
    assert retinue("wait", name, "--local", "--json").json["output"] == "xy"


def test_a_job_that_is_held_ends_the_batch_command_and_goes_on_after_resume(retinue: Command, project: Path) -> None:
    (project / "in.jsonl").write_text('"a"\n"b"\n')
    given = ("batch", "patient", "--input", "in.jsonl", "--output", "held.jsonl", "--local", "--json")
    job = retinue(*given).json["job_id"]
    assert retinue("pause", job, "--json").json == {"run_id": job, "held": 3}
    for request in retinue("inbox", job, "--json").json["waits"]:
        if request["request_id"]:
            retinue("answer", request["request_id"], "!")
    held = retinue(*given[:-1], "--resume")
    assert (held.code, f"`retinue resume {job[-12:]}`" in held.err) == (Exit.asks, True)
    retinue("resume", job)
    assert retinue(*given, "--resume").json["ok"] == 2


# -- retry -------------------------------------------------------------------------------------------------


def test_a_retry_says_what_it_takes_anew_and_keeps_ids_and_keys(retinue: Command, project: Path) -> None:
    run = failed(retinue, "lines", ["a", "bad b"])
    repair(project)
    said = retinue("retry", run, "--budget", "steps=9", "--budget", "hops=20,usd=1.50", "--deadline", "1h")
    assert "2 runs queued again; finished steps are kept" in said.out
    assert "line: takes step 0/look#0 anew" in said.out and "lines: takes step 0/line#1 anew" in said.out
    assert f"`retinue wait {run[-12:]}` carries it on" in said.out
    seen = retinue("inspect", run, "--json").json
    assert (seen["budget"]["steps"], seen["budget"]["hops"], seen["budget"]["usd"]) == (9, 20, "1.50")
    assert seen["error"] is None
    assert retinue("wait", run, "--local", "--json").json["output"] == ["A", "BAD B"]
    keys = [line.split()[-1] for line in (project / "posted").read_text().splitlines()]
    assert len(keys) == 2 == len(set(keys))


def test_a_retry_that_migrates_goes_on_with_the_versions_of_now(retinue: Command, project: Path) -> None:
    run = failed(retinue, "pinned", "bad")
    repair(project)
    said = retinue("retry", run, "--migrate")
    assert "begins at its newest checkpoint with the code of now" in said.out
    assert retinue("wait", run, "--local", "--json").json["output"] == "BAD"


def test_a_retry_of_what_did_not_fail_names_both_states(retinue: Command, project: Path) -> None:
    run = completed(retinue, "line", "a")
    said = retinue("retry", run)
    assert said.code == Exit.usage and "is completed and cannot become queued" in said.err
    waiting = retinue("run", "patient", "x", "--local", "--json").json["run_id"]
    said = retinue("retry", waiting)
    assert said.code == Exit.usage and "is waiting_for_input and goes on by itself: only a failed run" in said.err
    retinue("cancel", waiting)
    assert "is canceled and cannot become queued" in retinue("retry", waiting).err
    assert "is canceled and nothing below it goes on" in retinue("pause", waiting).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pause", "nobody"), "there is no run 'nobody'"),
        (("resume", "nobody"), "there is no run 'nobody'"),
        (("retry", "nobody"), "there is no run 'nobody'"),
        (("retry", "nobody", "--migrate"), "there is no run 'nobody'"),
        (("retry", "RUN", "--budget", "steps"), "'steps' is no limit: give NAME=NUMBER, of steps, hops"),
        (("retry", "RUN", "--budget", "turns=4"), "'turns=4' is no limit"),
        (("retry", "RUN", "--budget", "steps=none"), "steps: Input should be a valid integer"),
        (("retry", "RUN", "--budget", "usd=-1"), "usd: Input should be greater than or equal to 0"),
        (("retry", "RUN", "--deadline", "soon"), "'soon' is no time span such as 90s"),
        (("retry", "RUN", "--deadline", "0s"), "'0s' is no time span"),
        (("retry", "RUN", "--deadline", "nan"), "'nan' is no time span"),
        (("run", "line", "x", "--local", "--deadline", "-5m"), "'-5m' is no time span"),
        (("run", "line", "x", "--local", "--priority", "high"), "'high' is not a valid integer"),
        (("fork", "nobody", "--at", "start"), "there is no run 'nobody'"),
        (("fork", "RUN"), "Missing option '--at'"),
        (("fork", "RUN", "--at", "loook"), "there is no step 'loook': name one of 0/look#0"),
        (("fork", "RUN", "--at", "0/"), "'0/' is part of 2 steps: name one of 0/look#0, 0/post#0"),
        (("fork", "RUN", "--at", "checkpoint:1"), "there is no checkpoint 1: it has none"),
        (("fork", "RUN", "--at", "look", "--with", "{half"), "--with '{half' is not JSON"),
        (("fork", "RUN", "--at", "start", "--with", "7"), "input of line"),
        (("fork", "RUN", "--at", "look", "--version", "old"), "'old' is not one of 'current', 'pinned'"),
        (("dlq", "show", "nobody"), "there is no run 'nobody'"),
        (("dlq", "show", "input-99999"), "there is no dead letter 'input-99999'"),
        (("dlq", "list", "--job", "nobody"), "there is no run 'nobody'"),
        (("dlq", "redrive", "nobody"), "there is no run 'nobody'"),
        (("dlq", "redrive", "RUN", "--reason", "bad luck"), "'bad luck' is not one of"),
        (("dlq", "redrive", "RUN", "--reason", "model_failure"), "is failed (tool_failure), not with model_failure"),
        (("dlq", "redrive", "RUN", "--limit", "0"), "0 is not in the range x>=1"),
        (("dlq", "bury", "RUN"), "No such command 'bury'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    retinue: Command, project: Path, arguments: tuple[str, ...], words: str
) -> None:
    run = failed(retinue, "line", "bad")
    said = retinue(*(run if word == "RUN" else word for word in arguments))
    assert (said.code, words in said.err) == (Exit.usage, True), said.err
    assert record(retinue, run)["status"] == "failed"


# -- fork --------------------------------------------------------------------------------------------------


@pytest.mark.promise("I7")
@pytest.mark.rule("R13")
def test_a_fork_shares_the_past_and_asks_before_it_writes_again(retinue: Command, project: Path) -> None:
    run = completed(retinue, "line", "a")
    said = retinue("fork", run, "--at", "look")
    fork = said.out.split()[1]
    assert f"of run {run[-12:]} at 0/look#0" in said.out and "shared: 1 finished step, not paid" in said.out
    assert "written by the original" not in said.out
    assert retinue("wait", fork, "--local", "--json").json["output"] == "A"
    assert len((project / "posted").read_text().splitlines()) == 1
    again = retinue("fork", run, "--at", "post")
    assert "written by the original after that: post; the fork asks" in again.out
    asks = retinue("wait", again.out.split()[1], "--local", "--json")
    assert asks.code == Exit.asks and "has made this very write already" in asks.json["requests"][0]["prompt"]
    retinue("cancel", again.out.split()[1])


@pytest.mark.promise("I7")
def test_a_fork_goes_on_with_what_it_is_given(retinue: Command, project: Path) -> None:
    run = completed(retinue, "line", "a")
    given = retinue("fork", run, "--at", "look", "--with", '"told"', "--by", "ana", "--json").json
    assert (given["given"], given["shared"], given["at"]) == (True, 1, "0/look#0")
    assert retinue("wait", given["run_id"], "--local", "--json").json["output"] == "told"
    long = completed(retinue, "pages", 3)
    skipped = retinue("fork", long, "--at", "checkpoint:1", "--with", "3", "--json").json
    assert retinue("wait", skipped["run_id"], "--local", "--json").json["output"] == 3
    other = retinue("fork", long, "--at", "start", "--with", "0", "--json").json
    assert retinue("wait", other["run_id"], "--local", "--json").json["output"] == 0


@pytest.mark.promise("I7")
def test_a_fork_of_a_child_is_a_run_of_its_own_and_can_be_forked(retinue: Command, project: Path) -> None:
    run = completed(retinue, "lines", ["a", "b"])
    [child, _] = [one["run_id"] for one in retinue("ps", "--parent", run, "--json").json]
    first = retinue("fork", child, "--at", "look", "--json").json
    shown = record(retinue, first["run_id"])
    assert (shown["parent_run_id"], shown["root_run_id"], shown["pool"]) == (None, first["run_id"], "runs")
    assert shown["queue"] == "maps"
    assert retinue("wait", first["run_id"], "--local").code == Exit.done
    second = retinue("fork", first["run_id"], "--at", "look", "--version", "pinned", "--json").json
    assert second["shared"] == 1
    assert retinue("wait", second["run_id"], "--local").code == Exit.done
    assert len((project / "posted").read_text().splitlines()) == 2


@pytest.mark.promise("I7")
def test_a_fork_shares_the_branches_of_a_fan_out_that_stayed_in_the_table(retinue: Command, project: Path) -> None:
    run = completed(retinue, "many", 150)
    fork = retinue("fork", run, "--at", "look", "--json").json
    assert fork["shared"] == 1
    assert retinue("wait", fork["run_id"], "--local", "--json").json["output"] == str(sum(range(150)))
    assert retinue("ps", "--parent", fork["run_id"], "--json").json == []


# -- dead letters ------------------------------------------------------------------------------------------


def job(retinue: Command, project: Path, *rows: str) -> str:
    """A job over rows with a name of its own; its id."""
    (project / "rows.jsonl").write_text("".join(row + "\n" for row in rows))
    given = ("batch", "line", "--input", "rows.jsonl", "--output", "rows.out.jsonl", "--local", "--force", "--json")
    return str(retinue(*given).json["job_id"])


@pytest.mark.promise("C5")
@pytest.mark.promise("B5")
def test_dead_letters_have_one_shape_whatever_was_given_up(retinue: Command, project: Path) -> None:
    made = job(retinue, project, '"a"', '"bad b"', "{half", '"bad c"')
    found = retinue("dlq", "list", "--job", made[-12:], "--json").json
    assert found["more"] == 0
    letters = {(one["input_id"], one["line"]): one for one in found["letters"]}
    assert set(letters) == {("2", None), (None, 3), ("4", None)}
    run, refused = letters["2", None], letters[None, 3]
    assert (run["kind"], run["agent"], run["reason"], run["code"]) == ("run", "line", "tool_failure", "missing")
    assert (run["message"], run["retryable"], run["attempts"]) == ("no map of bad b", False, 1)
    assert run["helps"] == "repair the tool, then retry"
    assert (refused["kind"], refused["agent"], refused["reason"], refused["job"]) == ("input", "line", "not_json", made)
    assert refused["source"].endswith("rows.jsonl") and "run the corrected lines as a batch" in refused["helps"]
    text = retinue("dlq", "list", "--limit", "2")
    assert "more: --limit shows more of them" in text.out and "repair the tool, then retry" in text.out
    assert retinue("dlq", "show", refused["id"], "--json").json["input"] == "{half\n"
    assert '"bad b"' in retinue("dlq", "show", run["id"]).out
    said = retinue("dlq", "redrive", refused["id"])
    assert said.code == Exit.usage and "never became a run and cannot be redriven: correct the line" in said.err
    assert retinue("dlq", "show", made).err.endswith("only a failed run is a dead letter\n")


@pytest.mark.promise("C5")
@pytest.mark.promise("B5")
def test_a_redrive_takes_up_so_many_rows_of_a_reason_and_counts_the_tries(retinue: Command, project: Path) -> None:
    made = job(retinue, project, '"a"', '"bad b"', '"bad c"')
    assert retinue("dlq", "redrive", made, "--reason", "model_failure", "--json").json["queued"] == []
    some = retinue("dlq", "redrive", made, "--limit", "1", "--background")
    assert (
        some.code == Exit.done
        and "1 run queued again" in some.err
        and f"`retinue wait {made[-12:]}` carries it on" in some.err
    )
    [group] = retinue("inspect", made, "--json").json["children"]
    assert (group["ok"], group["failed"], group["queued"]) == (1, 1, 1)
    assert retinue("wait", made, "--local", "--json").json == {"run_id": made, "ok": 1, "failed": 2}
    tries = {
        one["input_id"]: one["attempts"] for one in retinue("dlq", "list", "--job", made, "--json").json["letters"]
    }
    assert tries == {"2": 2, "3": 1}
    repair(project)
    said = retinue("dlq", "redrive", made)
    assert (said.code, said.out) == (Exit.done, "3 rows ok, 0 failed\n")
    assert "retinue batch ... --resume" in said.err
    assert retinue("dlq", "list", "--job", made).out == "no dead letters\n"
    keys = [line.split()[-1] for line in (project / "posted").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 3


@pytest.mark.promise("C5")
def test_a_single_failed_run_is_redriven_and_followed(retinue: Command, project: Path) -> None:
    run = failed(retinue, "line", "bad")
    repair(project)
    said = retinue("dlq", "redrive", run)
    assert (said.code, said.out) == (Exit.done, "BAD\n")
    assert "is completed and cannot become queued" in retinue("dlq", "redrive", run).err


def test_a_group_of_commands_names_them(retinue: Command, project: Path) -> None:
    said = retinue("dlq")
    assert said.code == Exit.done and all(word in said.out for word in ("list", "show", "redrive"))


# -- priorities, queues, deadlines -------------------------------------------------------------------------


def test_priority_queue_and_deadline_are_kept_with_the_run_and_its_children(retinue: Command, project: Path) -> None:
    given = ("run", "lines", "--input", '["a"]', "--local", "--json", "--priority", "7", "--queue", "slow")
    run = retinue(*given).json["run_id"]
    assert [record(retinue, run)[name] for name in ("priority", "queue")] == [7, "slow"]
    assert "slow, priority 7" in retinue("inspect", run).out
    [child] = retinue("ps", "--parent", run, "--json").json
    assert (child["priority"], child["queue"]) == (7, "maps")
    late = failed(retinue, "pages", 10**6, "--deadline", "0.2s")
    assert record(retinue, late)["reason"] == "deadline_exceeded"


def test_a_batch_gives_its_rows_priority_and_queue(retinue: Command, project: Path) -> None:
    (project / "ask.jsonl").write_text('"a"\n')
    given = ("batch", "patient", "--input", "ask.jsonl", "--output", "ask.out.jsonl", "--local", "--json")
    made = retinue(*given, "--priority", "-3", "--queue", "slow").json["job_id"]
    [row] = retinue("ps", "--job", made, "--json").json
    assert (row["priority"], row["queue"]) == (-3, "slow")
    retinue("cancel", made)


def test_the_synchronous_client_steers_too(retinue: Command, project: Path) -> None:
    run = failed(retinue, "line", "bad x")
    with connect_sync(start=False) as client:
        assert client.dead_letter(run).input == "bad x"
        assert client.dead(limit=1).letters[0].id == run
        assert client.retry(run, budget=Budget(hops=9)).queued == (run,)
        assert client.pause(run) == 1 and client.resume(run) == 1
    repair(project)
    with connect_sync(local=True) as client:
        assert client.wait(run, 30).value == "BAD X"
        fork = client.fork(run, "look", Given("told", "ana"))
        assert client.wait(fork.run_id, 30).value == "told"
        assert client.get(fork.run_id).status is Status.completed
