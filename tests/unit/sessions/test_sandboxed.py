"""The capabilities of sandboxes: what they accept, what they tell models, what they refuse, that they need a run."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from tests.unit.sessions.calling import caller

from retinue.runs.agent_sandbox import OPERATIONS
from retinue.runs.capabilities import SANDBOX
from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import AGENT_TOOLS, ExecResult
from retinue.sessions.catalog import Catalog
from retinue.sessions.sandboxed import SandboxTool, sandbox_tools

pytestmark = [pytest.mark.promise("E1")]

CATALOG = Catalog(sandbox_tools(agents=True))
GOOD: dict[str, dict[str, Any]] = {
    "sandbox.open": {"manifest": "coder"},
    "sandbox.exec": {"sandbox": "s", "argv": ["true"], "replayable": False},
    "sandbox.read": {"sandbox": "s", "path": "a"},
    "sandbox.write": {"sandbox": "s", "path": "a", "text": ""},
    "sandbox.edit": {"sandbox": "s", "path": "a", "old": "x", "new": ""},
    "sandbox.list": {"sandbox": "s"},
    "sandbox.snapshot": {"sandbox": "s"},
    "sandbox.adopt": {"sandbox": "s", "snapshot": "s1-0"},
    "sandbox.close": {"sandbox": "s"},
    "shell": {"command": "true"},
    "python": {"code": "pass", "timeout": 5},
    "read_file": {"path": "a", "offset": 3},
    "write_file": {"path": "a", "content": ""},
    "edit_file": {"path": "a", "old": "x", "new": "y"},
    "list_files": {},
}


def test_there_is_one_capability_for_each_operation_and_each_tool_of_an_agent() -> None:
    assert {one.name for one in CATALOG.capabilities} == set(OPERATIONS) == set(GOOD)
    assert [one.capability.name for one in sandbox_tools(agents=False)] == [
        name for name in OPERATIONS if name not in AGENT_TOOLS
    ]
    assert all(one.source == SANDBOX and one.server is None and one.repeatable for one in CATALOG.capabilities)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_accepted_fits_the_schema_with_all_that_has_a_default(name: str) -> None:
    tool = CATALOG.get(name)
    accepted = tool.accept(GOOD[name])
    jsonschema.validate(accepted, tool.capability.input_schema)
    assert GOOD[name].items() <= accepted.items() and tool.accept(accepted) == accepted
    assert set(accepted) == set(tool.capability.input_schema["properties"])


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("shell", {}, "argument 'command' is missing"),
        ("shell", {"command": ""}, "argument 'command' is '': String should have at least 1 character"),
        ("write_file", {"path": "", "content": ""}, "argument 'path' is '': String should have at least 1 character"),
        ("shell", {"command": "true", "timeout": 0}, "'timeout'"),
        ("shell", {"command": "true", "timeout": "5"}, "'timeout'"),
        ("shell", {"command": "true", "timeout": float("nan")}, "'timeout'"),
        ("shell", {"cmd": "true", "command": "x"}, "there is no argument 'cmd'"),
        ("shell", {"command": "a\0b"}, "NUL"),
        ("shell", {"command": "x" * 130_000}, "write it to a file"),
        ("sandbox.exec", {"sandbox": "s", "argv": []}, "'argv'"),
        ("sandbox.exec", {"sandbox": "s", "argv": ["a", "b\0"]}, "argv.1"),
        ("sandbox.exec", {"sandbox": "s", "argv": ["a"], "env": {"A": "\0"}}, "env.A"),
        ("sandbox.exec", {"sandbox": "", "argv": ["a"]}, "'sandbox'"),
        ("read_file", {"path": "a", "limit": 10**9}, "'limit'"),
        ("read_file", {"path": "a", "offset": -1}, "'offset'"),
        ("edit_file", {"path": "a", "old": "", "new": "x"}, "'old'"),
        ("list_files", {"path": "a\0"}, "NUL"),
        ("write_file", {"path": "a", "content": "\ud800"}, "not JSON"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(PermanentError, match=r"tool '") as caught:
        CATALOG.get(name).accept(arguments)
    assert caught.value.code == "invalid_arguments" and said in str(caught.value)


def test_a_call_without_a_run_is_refused() -> None:
    with pytest.raises(PermanentError, match="in a sandbox of a run") as caught:
        CATALOG.get("shell").invoke({"command": "true"}, caller(), None)
    assert caught.value.code == "no_sandbox"
    assert CATALOG.get("shell").invoke_probe({"command": "true"}, caller()) is None


@pytest.mark.parametrize("name", AGENT_TOOLS)
def test_a_model_is_told_all_it_must_know_in_few_words(name: str) -> None:
    spec = CATALOG.get(name).capability.spec
    assert 40 < len(spec.description) < 700 and "  " not in spec.description
    assert "title" not in str(spec.input_schema) and "replayable" not in str(spec.input_schema)
    for field, schema in spec.input_schema["properties"].items():
        assert schema.get("description"), f"{name}: {field} says nothing"


async def test_a_result_is_checked_and_kept_within_the_cap() -> None:
    tool = CATALOG.get("shell")
    assert isinstance(tool, SandboxTool)
    result = tool.shape(ExecResult(exit_code=1, stdout="x", stdout_bytes=1))
    assert result.value["exit_code"] == 1 and result.value["limits"] == [] and not result.cut
    most = tool.shape(ExecResult(exit_code=0, stdout="\x01" * 32 * 1024, stderr="\x01" * 32 * 1024))
    assert not most.cut, "what a tool may return always fits"
    with pytest.raises(PermanentError, match="return type"):
        tool.shape("text")
