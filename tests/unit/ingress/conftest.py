"""The command line as a function: arguments in, exit code and both streams out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ingress.steering import begin_anew, steered

from retinue.ingress.cli import main


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout, one JSON value."""
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def retinue(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process, with nobody at the keyboard."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def module_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for a module whose tests steer runs; it is the current folder."""
    with steered(tmp_path_factory.mktemp("steering") / "mine") as folder:
        yield folder


@pytest.fixture
def project(module_project: Path) -> Path:
    """That project with nothing going on in it."""
    return begin_anew(module_project)
