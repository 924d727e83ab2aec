"""docs/cli.md says what the commands are: every verb, every option and argument, every exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from retinue.ingress.cli import VERBS, cli
from retinue.ingress.exits import MEANING

TEXT = (Path(__file__).resolve().parents[3] / "docs/cli.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## retinue (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
CELL = re.compile(r"^\| (`[^|]+) \|", re.MULTILINE)
SHARED = {"--project", "--json", "--help"}


def parameters_of(verb: str) -> set[str]:
    """Long options and argument names of the real command and those below it, without those that every verb has."""
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    found = set()
    for parameter in (parameter for each in commands for parameter in each.params):
        if isinstance(parameter, click.Argument):
            found.add(str(parameter.make_metavar(click.Context(command))).strip("[]"))
        else:
            found.add(next(option for option in parameter.opts if option.startswith("--")))
    return found - SHARED


def test_the_document_has_every_verb_and_no_other() -> None:
    assert sorted(SECTIONS) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_document_has_every_option_of_a_verb_and_no_other(verb: str) -> None:
    cells = [
        cell for cell in CELL.findall(SECTIONS[verb]) if cell.startswith("`--") or cell[1:].split("`")[0].isupper()
    ]
    assert {re.split(r"[ `]", cell.strip("`"))[0] for cell in cells} == parameters_of(verb)


def test_the_document_has_every_exit_code() -> None:
    table = {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.+) \|$", TEXT, re.MULTILINE)}
    assert table == {int(code): text for code, text in MEANING.items()}
