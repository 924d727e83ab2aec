"""`retinue dlq` as typed: what was given up, shown in one shape, and taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command
from tests.unit.ingress.steering import failed, repair

from retinue.ingress.exits import Exit

pytestmark = pytest.mark.promise("A9")


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
    assert run["helps"] == "repair the tool or what it was given, then retry"
    assert (refused["kind"], refused["agent"], refused["reason"], refused["job"]) == ("input", "line", "not_json", made)
    assert refused["source"].endswith("rows.jsonl") and "run the corrected lines as a batch" in refused["helps"]
    text = retinue("dlq", "list", "--limit", "2")
    assert (
        "more: --limit shows more of them" in text.out
        and "repair the tool or what it was given, then retry" in text.out
    )
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
