"""Declarations of servers: what cannot be is refused with the remedy, and a secret is never taken in the open."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from retinue.host.settings import Settings, load_settings
from retinue.runs.errors import ConfigError, PermanentError
from retinue.sessions.servers import Probe, Server, ToolOverride, environment_of, headers_of, missing_variables

ROOT = Path(__file__).resolve().parents[3]
URL = "https://mcp.example.com/mcp"
PROBE = {"tool": "find", "arguments": {"q": "$key"}}


def settings(folder: Path, **servers: Any) -> Settings:
    (folder / "retinue.yaml").write_text(json.dumps({"capabilities": servers}))
    return load_settings(folder)


def test_a_server_is_declared_and_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    given = {
        "command": ["npx", "-y", "some-server"],
        "env": {"API_TOKEN": "${API_TOKEN}", "LEVEL": "3", "MAX_TOKENS": "400"},
        "scope": "run",
        "idle_seconds": "5m",
        "tools": {"find": {"side_effect": "read", "timeout": "10s"}},
    }
    made = settings(tmp_path, desk=given, web={"url": URL, "auth": "${WEB}", "headers": {"X-Team": "blue"}})
    assert Settings.model_validate_json(made.model_dump_json()) == made
    desk = made.servers["desk"]
    assert (desk.name, desk.transport, desk.scope, desk.idle_seconds) == ("desk", "stdio", "run", 300.0)
    assert desk.cwd == str(tmp_path / ".")
    assert desk.override("find").timeout == 10.0
    careful = desk.override("anything else")
    assert (careful.side_effect, careful.idempotency) == ("write", None)
    assert made.servers["web"].transport == "http"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one of `command`"),
        ({"command": ["a"], "url": URL}, "exactly one of `command`"),
        ({"command": []}, "must begin with a program"),
        ({"command": "npx server"}, "must be a list"),
        ({"url": "ftp://example.com"}, "must be an address such as https"),
        ({"url": URL, "env": {"A": "b"}}, "`env` and `cwd` go with a `command`"),
        ({"command": ["a"], "headers": {"A": "b"}}, "`auth` and `headers` go with a `url`"),
        ({"url": URL, "auth": "${A}", "headers": {"Authorization": "Bearer ${B}"}}, "say the same"),
        ({"url": "http://mcp.example.com/mcp", "auth": "${A}"}, "in the open: use https"),
        ({"url": "http://mcp.example.com/mcp", "headers": {"X-A": "${A}"}}, "in the open: use https"),
        ({"url": URL, "headers": {"A B": "c"}}, "no HTTP header"),
        ({"command": ["a"], "env": {"A-B": "c"}}, "no name of an environment variable"),
        ({"command": ["a"], "scope": "all"}, "'run', 'worker' or 'shared'"),
        ({"command": ["a"], "timeout": 0}, "greater than 0"),
        ({"command": ["a"], "tols": {}}, "did you mean 'capabilities.desk.tools'"),
        ({"command": ["a"], "tools": {"t": {"side_effect": "write"}}}, "names no idempotency"),
        ({"command": ["a"], "tools": {"t": {"side_effect": "read", "idempotency": "idempotent"}}}, "on a read"),
        ({"command": ["a"], "tools": {"t": {"idempotency": "reconcilable"}}}, "has no probe"),
        ({"command": ["a"], "tools": {"t": {"idempotency": "idempotent", "probe": PROBE}}}, "not reconcilable"),
        ({"command": ["a"], "tools": {"t": {"key_argument": "id"}}}, "key_argument is for writes that are"),
        ({"command": ["a"], "tools": {"t": {"idempotency": "reconcilable", "probe": PROBE}}}, "not said to read"),
    ],
)
def test_what_cannot_be_is_refused_with_the_place_and_the_remedy(tmp_path: Path, given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(tmp_path, desk=given)
    assert words in str(raised.value)
    assert "capabilities.desk" in str(raised.value)


@pytest.mark.parametrize("name", ["Desk", "9lives", "a__b", "x" * 32, "_a", "a.b"])
def test_a_name_that_capabilities_cannot_begin_with_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a server"):
        settings(tmp_path, **{name: {"command": ["a"]}})


SECRET = "s3cr3t-of-mine"


@pytest.mark.parametrize(
    "given",
    [
        {"url": URL, "auth": SECRET},
        {"url": URL, "auth": f"Bearer {SECRET} ${{A}}"},
        {"url": URL, "headers": {"X-Api-Key": SECRET}},
        {"url": URL, "headers": {"Authorization": f"Bearer {SECRET}"}},
        {"url": URL, "headers": {"Cookie": f"session={SECRET}"}},
        {"url": f"https://ana:{SECRET}@example.com/mcp"},
        {"url": URL, "headers": {"X-Note": f"ghp_{SECRET}"}},
        {"command": ["a"], "env": {"GITHUB_TOKEN": SECRET}},
        {"command": ["a"], "env": {"DB_PASSWORD": SECRET}},
        {"command": ["a"], "env": {"CLIENT_SECRET": SECRET}},
        {"command": ["a"], "env": {"ACCESS_TOKENS": SECRET}},
        {"command": ["a"], "env": {"NOTE": f"sk-{SECRET}"}},
        {"command": ["a", f"--api-key={SECRET}"]},
        {"command": ["a", f"ghp_{SECRET}"]},
        {"command": ["a", "${API_KEY}"]},
    ],
)
def test_a_secret_is_taken_by_reference_only_and_never_shown(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(tmp_path, desk=given)
    assert SECRET not in str(raised.value)
    assert "${" in str(raised.value) or "`auth:" in str(raised.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/mcp", "http://localhost/mcp", "http://[::1]/mcp", URL])
def test_a_secret_may_go_to_this_machine_or_by_https(url: str) -> None:
    assert Server(name="a", url=url, auth="${A}").auth == "${A}"


def test_references_are_resolved_when_a_connection_is_made_and_a_missing_one_is_named() -> None:
    web = Server(name="web", url=URL, auth="${WEB_TOKEN}", headers={"X-Team": "team ${TEAM}"})
    desk = Server(name="desk", command=("a",), env={"API_KEY": "${KEY}", "MODE": "fast"})
    environ = {"WEB_TOKEN": "t", "TEAM": "blue", "KEY": "k"}
    assert headers_of(web, environ) == {"Authorization": "Bearer t", "X-Team": "team blue"}
    assert environment_of(desk, environ) == {"API_KEY": "k", "MODE": "fast"}
    assert missing_variables(web, {"TEAM": ""}) == ["TEAM", "WEB_TOKEN"]
    with pytest.raises(
        PermanentError, match=r"capabilities\.web\.auth refers to \$\{WEB_TOKEN\}.*set WEB_TOKEN"
    ) as raised:
        headers_of(web, {"TEAM": "blue"})
    assert raised.value.code == "not_made"
    assert "KEY}" in repr(desk) and "k'" not in repr(environment_of)


def test_every_key_of_a_declaration_is_read_by_something() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "sessions").rglob("*.py"))
    read = set(re.findall(r"\b(?:server|override|probe)\.([a-z_]+)", sources))
    for model in (Server, ToolOverride, Probe):
        assert set(model.model_fields) - {"name"} <= read, model


def test_a_probe_may_only_ask_a_tool_that_is_said_to_read() -> None:
    tools = {"put": {"idempotency": "reconcilable", "probe": PROBE}, "find": {"side_effect": "read"}}
    assert Server.model_validate({"command": ["a"], "tools": tools}).override("put").probe is not None
    with pytest.raises(ValidationError, match="not said to read"):
        Server.model_validate({"command": ["a"], "tools": {"put": tools["put"]}})
