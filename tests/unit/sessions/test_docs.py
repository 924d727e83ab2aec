"""docs/tools.md and docs/capabilities.md: their examples run, load and name commands as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
from tests.unit.sessions.serving import Answers, definition, pinned

from retinue.host.settings import load_settings
from retinue.ingress.cli import cli
from retinue.runs.registry import Registry
from retinue.sessions.pins import Lock
from retinue.sessions.remotes import RemoteTools
from retinue.sessions.servers import Server

ROOT = Path(__file__).parents[3]
CONFIGURED = (ROOT / "docs/configuration.md").read_text("utf-8").partition("## Capabilities")[2].partition("\n## ")[0]


def test_the_examples_of_the_tools_page_run() -> None:
    text = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    names: dict[str, object] = {"__name__": "tools_page"}
    for example in examples:
        exec(compile(example, "docs/tools.md", "exec"), names)
    assert "main" in names


PAGE = (ROOT / "docs/capabilities.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE + CONFIGURED, re.DOTALL))
def test_the_declarations_of_the_capabilities_page_load(tmp_path: Path, block: str) -> None:
    (tmp_path / "retinue.yaml").write_text(block)
    assert load_settings(tmp_path).servers


def test_the_agents_of_the_capabilities_page_find_their_tools() -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "capabilities_page"}
    exec(compile(example, "docs/capabilities.md", "exec", dont_inherit=True), names)
    servers = {name: Server(name=name, command=(name,)) for name in ("files", "tracker")}
    pins = {
        "files": pinned(servers["files"], definition("read_text_file", {"path": {"type": "string"}})),
        "tracker": pinned(servers["tracker"], definition("create_issue")),
    }
    found = Registry([], [names["clerk"], names["greet"]], RemoteTools(servers, Lock(servers=pins), Answers()))
    assert found.get("clerk").tool_names == ("files__read_text_file", "tracker__create_issue")  # type: ignore[union-attr]


def test_the_commands_of_the_capabilities_page_are_there() -> None:
    named = set(re.findall(r"(?:`|\$ )retinue ([a-z]+)(?: ([a-z]+))?", PAGE))
    assert {("capabilities", "pin"), ("capabilities", "diff"), ("sessions", "list")} <= named
    for verb, below in named:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None, verb
        assert not isinstance(command, click.Group) or below in command.commands, (verb, below)
