"""`retinue fork` as typed: what the new run shares, what it is given, what it asks before it writes again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command
from tests.unit.ingress.steering import completed, record

from retinue.ingress.exits import Exit

pytestmark = pytest.mark.promise("A9")


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
