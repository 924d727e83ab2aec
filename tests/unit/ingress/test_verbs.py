"""The verbs on a project as `init` makes it, hosted in this process: real store, real policy, built-in model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit
from retinue.ingress.verbs.init import make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for the module (its modules are imported once a process); it is the current folder."""
    folder = tmp_path_factory.mktemp("project") / "mine"
    make_project(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture
def asking(retinue: Command, project: Path) -> tuple[str, str]:
    """(run, request) of a run that waits for an approval."""
    said = retinue("run", "keep_note", "Who may use the table saw?", "--local", "--json")
    assert said.code == Exit.asks
    return said.json["run_id"], said.json["requests"][0]["request_id"]


def lines(path: Path) -> list[Any]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_run_shows_an_answer_with_its_citations(retinue: Command, project: Path) -> None:
    said = retinue("run", "librarian", "How long may power tools be kept?", "--local")
    assert said.code == Exit.done
    assert "power tools for one week" in said.out.splitlines()[0]
    assert "[1] lending.md" in said.out
    assert "completed (success)" in said.err


def test_run_speaks_json(retinue: Command, project: Path) -> None:
    said = retinue("run", "librarian", "How long may power tools be kept?", "--local", "--json")
    assert (said.code, said.err) == (Exit.done, "")
    assert said.json["status"] == "completed"
    assert said.json["stop_reason"] == "success"
    assert said.json["output"]["citations"][0]["document"] == "lending.md"
    text = (project / "documents" / "lending.md").read_text("utf-8")
    for cited in said.json["output"]["citations"]:
        assert text[cited["start"] : cited["end"]].split() == cited["quote"].split()


def test_run_streams_events_before_the_result(retinue: Command, project: Path) -> None:
    said = retinue("run", "librarian", "Who founded the association?", "--local", "--stream", "--json")
    *events, result = map(json.loads, said.out.splitlines())
    assert {"accepted", "intent", "outcome", "checkpoint", "finished"} <= {line["event"]["kind"] for line in events}
    assert result["status"] == "completed"


def test_a_structured_input_comes_as_json_or_from_a_file(retinue: Command, project: Path) -> None:
    (project / "input.json").write_text('{"question": "Who founded the association?"}')
    for given in ('{"question": "Who founded the association?"}', "@input.json"):
        said = retinue("run", "librarian", "--input", given, "--local", "--json")
        assert "Mira Holt" in said.json["output"]["answer"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("librarian",), "give either a QUESTION or --input JSON"),
        (("librarian", "x", "--input", "{}"), "give either a QUESTION or --input JSON"),
        (("librarian", "--input", "{half"), "--input is not JSON"),
        (("librarian", "--input", "@none.json"), "none.json cannot be read: No such file"),
        (("librarian", "x", "--background"), "give one of the two"),
        (("librarian", "x", "--max-cost", "much"), "no amount of dollars"),
        (("libarian", "x"), "did you mean librarian?"),
        (("librarian", "x", "--model", "builtin:extractiv"), "did you mean builtin:extractive?"),
        (("librarian", "x", "--model", "openai:some"), "OPENAI_API_KEY"),
        (("keep_note", "--input", "[1]"), "input of keep_note"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(
    retinue: Command, project: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = retinue("ps", "--limit", "1", "--json").json
    said = retinue("run", *arguments, "--local")
    assert said.code == Exit.usage
    assert words in said.err
    assert retinue("ps", "--limit", "1", "--json").json == before


def test_a_run_that_asks_ends_the_command_and_is_carried_on(
    retinue: Command, project: Path, asking: tuple[str, str]
) -> None:
    run, request = asking
    listed = retinue("inbox", "--json").json["waits"]
    assert [one["run_id"] for one in listed if one["request_id"] == request] == [run]
    assert f"`retinue approve {request}`" in retinue("inbox").out
    assert retinue("approve", request).code == Exit.done
    said = retinue("wait", run, "--local", "--json")
    assert said.code == Exit.done
    note = project / "notes" / said.json["output"]
    assert "safety course" in note.read_text("utf-8")
    again = retinue("approve", request)
    assert again.code == Exit.usage
    assert "is approved already" in again.err


def test_a_denied_run_fails_and_says_what_helps(retinue: Command, project: Path, asking: tuple[str, str]) -> None:
    run, request = asking
    notes = sorted((project / "notes").glob("*")) if (project / "notes").exists() else []
    assert "denied by" in retinue("deny", request, "--why", "not now").out
    said = retinue("wait", run, "--local")
    assert said.code == Exit.failed
    assert "failed (policy_denied)" in said.err
    assert "what helps: change the request or the policy, then submit again" in said.err
    assert (sorted((project / "notes").glob("*")) if (project / "notes").exists() else []) == notes


def test_an_approval_is_not_answered_with_text(retinue: Command, project: Path, asking: tuple[str, str]) -> None:
    run, request = asking
    said = retinue("answer", request, "yes")
    assert said.code == Exit.usage
    assert "approve or deny it" in said.err
    assert retinue("cancel", run, "--json").json["canceled"] == 1


def test_cancel_ends_a_run_and_says_when_it_had_ended(retinue: Command, project: Path, asking: tuple[str, str]) -> None:
    run, _ = asking
    assert retinue("cancel", run[-8:]).out == "1 run canceled\n"
    assert "had ended already: canceled" in retinue("cancel", run).out
    assert retinue("wait", run).code == Exit.canceled


@pytest.mark.promise("C2")
def test_inspect_names_cursor_boundary_and_what_is_kept(
    retinue: Command, project: Path, asking: tuple[str, str]
) -> None:
    run, request = asking
    seen = retinue("inspect", run, "--json").json
    record = seen["record"]
    assert (record["status"], record["reason"]) == ("waiting_for_approval", "approval_required")
    assert seen["cursor"] == {"position": record["position"] + 1, "epoch": record["epoch"]}
    assert seen["boundary"] == {"name": "begin", "number": 0, "position": 0}
    assert [(step["effect"], step["name"]) for step in seen["finished"]] == [("children", "librarian")]
    assert [one["request_id"] for one in seen["requests"]] == [request]
    assert seen["waits"]
    text = retinue("inspect", run).out
    assert f"resumes at position {record['position'] + 1}, epoch above {record['epoch']}" in text
    assert "1 finished steps since then" in text
    assert "librarian: 1 of 1 done, 0 failed" in text
    retinue("cancel", run)


def test_inspect_names_the_newest_checkpoint(retinue: Command, project: Path) -> None:
    retinue("run", "librarian", "Who founded the association?", "--local")
    run = retinue("ps", "--limit", "1", "--json").json[0]["run_id"]
    seen = retinue("inspect", run, "--json").json
    assert seen["boundary"]["name"] == "turn"
    assert seen["finished_before"] > 0
    assert "it has ended and is not resumed" in retinue("inspect", run).out


def test_ps_lists_runs_newest_first(retinue: Command, project: Path) -> None:
    retinue("run", "librarian", "Who founded the association?", "--local")
    listed = retinue("ps", "--json").json
    assert [one["created_at"] for one in listed] == sorted((one["created_at"] for one in listed), reverse=True)
    assert {one["parent_run_id"] for one in listed} == {None}
    assert retinue("ps", "--status", "queued", "--json").json == []
    assert listed[0]["run_id"][-12:] in retinue("ps", "--limit", "1").out


def test_logs_tell_what_happened_and_begin_where_asked(retinue: Command, project: Path) -> None:
    retinue("run", "librarian", "Who founded the association?", "--local")
    run = retinue("ps", "--limit", "1", "--json").json[0]["run_id"]
    said = retinue("logs", run)
    assert "accepted agent librarian" in said.out
    assert "completed (success)" in said.out.splitlines()[-1]
    events = [json.loads(line) for line in retinue("logs", run, "-f", "--json").out.splitlines()]
    tail = [json.loads(line) for line in retinue("logs", run, "--after", "5", "--json").out.splitlines()]
    assert tail == [event for event in events if event["position"] > 5]


def test_a_run_that_does_not_exist_is_told(retinue: Command, project: Path) -> None:
    for verb in ("inspect", "logs", "wait", "cancel"):
        said = retinue(verb, "nothing-like-it")
        assert said.code == Exit.usage
        assert "there is no run 'nothing-like-it': `retinue ps` lists them" in said.err


def test_batch_writes_rows_in_input_order(retinue: Command, project: Path) -> None:
    said = retinue("batch", "librarian", "--input", "questions.jsonl", "--output", "a.jsonl", "--local", "--json")
    assert said.code == Exit.done
    assert {name: said.json[name] for name in ("rows", "ok", "failed", "rejected", "written")} == {
        "rows": 6,
        "ok": 6,
        "failed": 0,
        "rejected": 0,
        "written": 6,
    }
    rows = lines(project / "a.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in lines(project / "questions.jsonl")]
    assert set(rows[0]) == {
        *("id", "answer", "citations", "confidence", "status", "stop_reason", "cost_usd", "run_id"),
    }
    assert {row["status"] for row in rows} == {"completed"}
    assert not (project / "a.jsonl.dead.jsonl").exists()


def test_batch_sets_bad_rows_aside_and_runs_the_rest(retinue: Command, project: Path) -> None:
    good = b'{"id": "a", "question": "Who founded the association?"}\n'
    (project / "half.jsonl").write_bytes(good + b'{"id": "b", "que\n\xff\xfe\n' + good.replace(b'"a"', b'"c"'))
    said = retinue("batch", "librarian", "--input", "half.jsonl", "--output", "h.jsonl", "--local")
    assert said.code == Exit.failed
    assert "2 ok, 0 failed, 2 not readable" in said.err
    assert [row["id"] for row in lines(project / "h.jsonl")] == ["a", "c"]
    dead = lines(project / "h.jsonl.dead.jsonl")
    assert [(letter["line"], letter["reason"]) for letter in dead] == [(2, "not_json"), (3, "not_utf8")]


def test_batch_touches_nothing_that_exists_unless_asked(retinue: Command, project: Path) -> None:
    given = ("batch", "librarian", "--input", "questions.jsonl", "--output", "again.jsonl", "--limit", "2", "--local")
    assert retinue(*given).code == Exit.done
    first = (project / "again.jsonl").read_bytes()
    refused = retinue(*given)
    assert refused.code == Exit.usage
    assert "--force replaces it" in refused.err
    (project / "again.jsonl").write_text("lost\n")
    assert retinue(*given, "--resume").code == Exit.done
    assert (project / "again.jsonl").read_bytes() == first
    assert retinue(*given, "--force").code == Exit.done
    renewed = lines(project / "again.jsonl")
    assert [row["id"] for row in renewed] == ["q1", "q2"]
    assert {row["run_id"] for row in renewed} & {json.loads(line)["run_id"] for line in first.splitlines()} == set()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "is empty"),
        ("twice.jsonl", '{"id": 1}\n{"id": 1}\n', "occur more than once (lines 1 and 2)"),
        ("rows.txt", "a", "unknown ending '.txt'"),
    ],
)
def test_batch_refuses_an_input_before_any_run(
    retinue: Command, project: Path, name: str, content: str, words: str
) -> None:
    (project / name).write_text(content)
    said = retinue("batch", "librarian", "--input", name, "--output", "never.jsonl", "--local")
    assert said.code == Exit.usage
    assert words in said.err
    assert not (project / "never.jsonl").exists()


def test_batch_that_waits_for_people_says_so_and_resumes(retinue: Command, project: Path) -> None:
    (project / "notes.jsonl").write_text('"Who may use the table saw?"\n"Who founded the association?"\n')
    given = ("batch", "keep_note", "--input", "notes.jsonl", "--output", "n.jsonl", "--local", "--json")
    said = retinue(*given)
    assert (said.code, said.json["waiting"], said.json["status"]) == (Exit.asks, 2, "waiting_for_person")
    for request in retinue("inbox", "--json").json["waits"]:
        assert retinue("approve", request["request_id"]).code == Exit.done
    resumed = retinue(*given, "--resume")
    assert (resumed.code, resumed.json["ok"]) == (Exit.done, 2)
    assert [row["id"] for row in lines(project / "n.jsonl")] == ["1", "2"]


def test_sql_answers_in_every_format(retinue: Command, project: Path) -> None:
    retinue("run", "librarian", "Who founded the association?", "--local")
    query = "select agent, status from runs where agent = 'librarian' limit 1"
    assert "agent" in retinue("sql", query).out.splitlines()[0]
    assert retinue("sql", query, "--json").json == [{"agent": "librarian", "status": "completed"}]
    assert retinue("sql", query, "--format", "csv").out.splitlines()[1].replace('"', "") == "librarian,completed"
    assert retinue("sql", query, "--format", "parquet", "-o", "x.parquet").code == Exit.done
    assert pq.read_table(project / "x.parquet").to_pylist() == [{"agent": "librarian", "status": "completed"}]
    (project / "query.sql").write_text(query)
    assert retinue("sql", "@query.sql", "--json").json[0]["agent"] == "librarian"


@pytest.mark.parametrize("query", ["select nothing from runs", "drop table runs", "selct 1", "@none.sql"])
def test_sql_that_cannot_be_answered_is_told(retinue: Command, project: Path, query: str) -> None:
    said = retinue("sql", query)
    assert said.code == Exit.usage
    assert said.out == ""
    assert "Traceback" not in said.err


@pytest.mark.promise("K3")
def test_doctor_checks_the_project_and_tells_what_is_ready(retinue: Command, project: Path) -> None:
    said = retinue("doctor", "--json")
    assert said.code == Exit.done, said.out
    assert [check["name"] for check in said.json["checks"] if not check["ok"]] == []
    areas = {area["name"]: area for area in said.json["readiness"]}
    assert {"state", "capabilities", "policy", "context", "traces", "sandbox", "auth", "backups"} == set(areas)
    assert all(area["owner"] and area["gap"] and area["decision"] for area in areas.values())
    said = repr((areas["capabilities"], areas["context"]))
    assert "MCP" in said and "not there" not in said and "no memory" not in said, "what exists is not told as a gap"
    assert "readiness" not in retinue("doctor").err


def test_doctor_fails_on_a_policy_that_does_not_parse(retinue: Command, project: Path) -> None:
    broken = project / "policy" / "broken.cedar"
    broken.write_text("permit everything")
    try:
        said = retinue("doctor")
        assert said.code == Exit.failed
        assert f"FAIL  policy         {broken}:1: not a Cedar rule" in said.out
        run = retinue("run", "librarian", "x", "--local")
        assert run.code == Exit.usage
        assert "not a Cedar rule" in run.err
    finally:
        broken.unlink()
