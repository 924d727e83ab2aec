"""`retinue sql --archive`: asked on any machine that reaches the archive, whoever wrote it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.doubles.projects import project
from tests.unit.ingress.conftest import Command

pytestmark = pytest.mark.promise("I4")


def test_what_a_local_run_left_in_the_archive_is_asked_without_its_data_folder(
    tmp_path: Path, retinue: Command
) -> None:
    given = {"traces": {"archive": f"file://{tmp_path}/shelf/traces"}}
    settings = project(tmp_path / "mine", modules=["tests.unit.host.desk"], settings=given)
    where = ("--project", settings.folder)
    early = retinue("sql", "SELECT 1", "--archive", *where)
    assert early.code == 2 and "no archive of traces" in early.err
    assert retinue("run", "hires", "What is it?", "--local", *where).code == 0
    tables = retinue("sql", "SELECT agent, status, reason FROM runs ORDER BY agent", "--json", *where).json
    shutil.rmtree(settings.data_folder)
    asked = ("sql", "SELECT agent, status, reason FROM runs ORDER BY agent", "--archive", "--json")
    assert retinue(*asked, *where).json == tables
    assert [row["agent"] for row in tables] == ["clerk", "hires"]
    assert retinue(*asked, "--until", "2020-01-01", *where).json == []
    assert not settings.data_folder.exists(), "nothing is made here to ask it"


def test_days_are_of_the_archive_and_an_archive_has_to_be_named(tmp_path: Path, retinue: Command) -> None:
    settings = project(tmp_path)
    refused = retinue("sql", "SELECT 1", "--since", "2026-11-01", "--project", settings.folder)
    assert refused.code == 2 and "go with --archive" in refused.err
    refused = retinue("sql", "SELECT 1", "--archive", "--project", settings.folder)
    assert refused.code == 2 and "name a place in `traces.archive`" in refused.err


def test_an_archive_that_cannot_be_written_holds_up_no_run_and_is_told_of(
    tmp_path: Path, retinue: Command, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = project(
        tmp_path / "mine",
        modules=["tests.unit.host.desk"],
        settings={"traces": {"archive": f"file://{tmp_path}/file/traces"}},
    )
    assert retinue("run", "clerk", "What is it?", "--local", "--project", settings.folder).code == 0
    assert "the archive of traces lags behind" in caplog.text
    rows = retinue("sql", "SELECT agent FROM runs", "--json", "--project", settings.folder).json
    assert rows == [{"agent": "clerk"}], "the tables have it all the same"
