"""Pause, resume, retry, priorities and deadlines as typed: what they say, what comes of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command
from tests.unit.ingress.steering import completed, failed, record, repair

from retinue.ingress.exits import Exit
from retinue.ingress.sync import connect_sync
from retinue.runs.contracts import Budget, Status
from retinue.runs.forking import Given

pytestmark = pytest.mark.promise("A9")


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
