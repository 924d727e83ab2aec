"""Model endpoints that are down, slow, limiting or broken, met through the command line: a server on the loopback."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.doubles.model_server import ModelServer, Received, serve_in_thread
from tests.doubles.model_wire import Plan
from tests.e2e.conftest import Project, Said, make_project

GOOD = Plan(text="Paris.")


@contextmanager
def endpoint(*plans: Plan) -> Iterator[tuple[ModelServer, list[float]]]:
    """A server that replies as planned, the last plan for ever, and the moments (s) at which it was asked."""
    moments: list[float] = []

    def reply(received: Received) -> Plan:
        moments.append(time.monotonic())
        return plans[min(len(moments), len(plans)) - 1]

    with serve_in_thread(reply) as server:
        yield server, moments


def ask(project: Project, url: str, *more: str, code: int) -> Said:
    """Ask the plain agent on the model at an address."""
    return project.run("run", "plain", "Where?", "--local", "--model", f"{url}/v1#m", *more, code=code)


FAILING: dict[str, tuple[Plan, int, str, str]] = {
    "slow": (Plan(fault="slow", delay=30), 2, "timeout", "3 s"),
    "drip": (Plan(fault="drip", delay=0.2), 2, "timeout", "3 s"),
    "status-500": (Plan(fault="status", status=500), 2, "server_error", "500"),
    "status-429": (Plan(fault="status", status=429), 2, "rate_limited", "429"),
    "cut": (Plan(text="Paris.", fault="cut"), 2, "connection_lost", ""),
    "garbage": (Plan(fault="garbage"), 1, "bad_reply", ""),
    "html": (Plan(fault="html"), 1, "bad_reply", "text/html"),
    "wrong-shape": (Plan(fault="wrong_shape"), 1, "bad_reply", ""),
    "without-end": (Plan(fault="huge"), 1, "reply_too_large", ""),
    "status-401": (Plan(fault="status", status=401), 1, "unauthorized", "401"),
}


@dataclass
class Batch:
    """One batch in which every row but one meets a fault of its own."""

    said: Said
    address: str
    rows: dict[str, Any]
    tries: Counter[str]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """It is run once; each test looks at one row."""
    project = make_project(tmp_path_factory.mktemp("models") / "project")
    tries: Counter[str] = Counter()

    def reply(received: Received) -> Plan:
        name = next((name for name in FAILING if f"<{name}>" in str(received.body["messages"])), "good")
        tries[name] += 1
        return FAILING[name][0] if name in FAILING else GOOD

    project.write_rows("in.jsonl", *({"id": name, "question": f"<{name}>"} for name in (*FAILING, "good")))
    with serve_in_thread(reply) as server:
        files = ("--input", "in.jsonl", "--output", "out.jsonl")
        said = project.run("batch", "plain", *files, "--local", "--model", f"{server.url}/v1#m", code=1)
    rows = {row["id"]: row for row in project.rows("out.jsonl")}
    return Batch(said, server.url.removeprefix("http://"), rows, tries)


@pytest.mark.promise("C5")
@pytest.mark.parametrize("bad", FAILING)
def test_an_endpoint_that_stays_broken_fails_the_run_by_name(batch: Batch, bad: str) -> None:
    _, tries, code, words = FAILING[bad]
    row = batch.rows[bad]
    assert (row["status"], row["stop_reason"], row["answer"]) == ("failed", "model_failure", None)
    assert row["error"]["code"] == code
    assert batch.address in row["error"]["message"]
    assert words in row["error"]["message"]
    assert batch.tries[bad] == tries, "only a transient failure is tried again, as often as retry.attempts says"


@pytest.mark.promise("B5")
def test_rows_that_fail_do_not_hold_up_the_one_that_is_well(batch: Batch) -> None:
    assert list(batch.rows) == [*FAILING, "good"]
    assert (batch.rows["good"]["status"], batch.rows["good"]["answer"]) == ("completed", "Paris.")
    assert batch.tries["good"] == 1
    assert f"1 ok, {len(FAILING)} failed, 0 not readable" in batch.said.err


@pytest.mark.promise("C5")
def test_an_endpoint_that_is_down_is_told_with_what_helps(project: Project) -> None:
    with endpoint(GOOD) as (server, _):
        address = server.url
    said = ask(project, address, code=1)
    assert address.removeprefix("http://") in said.err
    assert "what helps: check the model endpoint, then retry" in said.err
    [run] = project.run("ps", "--json", code=0).json
    seen = project.run("inspect", run["run_id"], code=0)
    assert seen.out.count("failed try") == 1
    assert f"cannot connect to {address}" in seen.line


RECOVERING: dict[str, tuple[Plan, float]] = {
    "500": (Plan(fault="status", status=500), 0.0),
    "429": (Plan(fault="status", status=429, headers=(("retry-after", "1"),)), 1.0),
    "cut": (Plan(text="Paris.", fault="cut"), 0.0),
}


@pytest.mark.promise("C5")
@pytest.mark.parametrize("bad", RECOVERING)
def test_an_endpoint_that_recovers_is_asked_again_and_not_before_it_wishes(project: Project, bad: str) -> None:
    plan, pause = RECOVERING[bad]
    with endpoint(plan, GOOD) as (server, moments):
        said = ask(project, server.url, code=0)
    assert said.out.strip() == "Paris."
    assert len(moments) == 2
    assert moments[1] - moments[0] >= pause


def test_a_stream_that_was_cut_begins_anew_and_the_answer_is_whole(project: Project) -> None:
    with endpoint(Plan(text="Paris is in France.", fault="cut"), Plan(text="Paris is in France.")) as (server, moments):
        said = ask(project, server.url, "--stream", "--json", code=0)
    assert len(moments) == 2
    *events, result = [json.loads(line) for line in said.out.splitlines()]
    assert result["output"] == "Paris is in France."
    texts: dict[int, str] = defaultdict(str)
    for event in (line["event"] for line in events):
        if event["kind"] == "delta":
            texts[event["facts"]["attempt"]] += event["text"]
    assert all("Paris is in France.".startswith(text) for text in texts.values()), "two attempts were mixed up"
    assert "broke the connection inside the stream" in said.out
