"""Servers of capabilities as a project declares them: how they are reached, and what their tools may be trusted with.

Plain data with its own checks, and the one place where references to secrets are resolved. Knows no protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from retinue.runs.capabilities import Idempotency, SideEffect
from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import PermanentError
from retinue.runs.patience import Span
from retinue.runs.references import KNOWN, REFERENCE, VARIABLE, missing_in, refuse_secret, resolved, secret_name

NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
"""A server's name: it begins the names of its capabilities."""

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Probe(Frozen):
    """How to ask whether a call has happened: a reading tool of the same server and its arguments.

    In texts among the arguments `$name` stands for an argument of the call and `$key` for its idempotency key. `found`
    is the path of what proves it (`items.0`), the whole result without one: null, false and what is empty say no.
    So does a text that contains `absent`.
    """

    tool: str = Field(min_length=1)
    arguments: dict[str, Json] = {}
    found: str = ""
    absent: str | None = Field(default=None, min_length=1)


class ToolOverride(Frozen):
    """What holds for one tool, whatever its server says of it. A tool without one is a write, `at_most_once`.

    `key_argument` is the argument that is given the idempotency key; models do not see it. None: the server's or the
    capability's default.
    """

    side_effect: SideEffect = "write"
    idempotency: Idempotency | None = None
    key_argument: str | None = Field(default=None, min_length=1)
    probe: Probe | None = None
    timeout: Span | None = Field(default=None, gt=0, le=86_400)
    max_bytes: int | None = Field(default=None, gt=0)
    sensitivity: Literal["public", "internal", "confidential", "secret"] = "internal"
    stage: Literal["shadow", "canary", "full"] = "full"
    owner: str = ""
    description: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _contract(self) -> Self:
        effect, idempotency = self.side_effect, self.idempotency
        if effect != "write" and idempotency is not None:
            raise ValueError(f"idempotency on a {effect}: only a write has an idempotency contract, leave it out")
        if effect == "write" and idempotency is None and "side_effect" in self.model_fields_set:
            raise ValueError(
                "it writes and names no idempotency: say idempotent (the same key may be sent again), reconcilable "
                "(a probe tells whether it happened) or at_most_once (never repeated on doubt)"
            )
        if idempotency == "reconcilable" and self.probe is None:
            raise ValueError("it is reconcilable and has no probe: give `probe: {tool: NAME, arguments: {...}}`")
        if self.probe is not None and idempotency != "reconcilable":
            raise ValueError("it has a probe and is not reconcilable: say `idempotency: reconcilable`")
        if self.key_argument is not None and idempotency not in ("idempotent", "reconcilable"):
            raise ValueError(
                "key_argument is for writes that are idempotent or reconcilable: say which, or leave it out"
            )
        return self


class Server(Frozen):
    """A server of capabilities: a `command` that speaks over its standard streams, or a `url`.

    `auth` is a bearer token by reference, `${NAME}`; `headers` and `env` may hold references too. `scope` says who
    shares a connection: nobody (`run`), the runs of a tenant in one process (`worker`), all runs in one (`shared`).
    Times are in seconds, `max_bytes` caps results. `tools` says what holds for single tools.
    """

    name: str = ""
    command: tuple[str, ...] | None = None
    url: str | None = None
    env: dict[str, str] = {}
    headers: dict[str, str] = {}
    auth: str | None = None
    cwd: str | None = None
    protocol: Literal["auto", "legacy", "2026-07-28"] = "auto"
    scope: Literal["run", "worker", "shared"] = "worker"
    sampling: bool = False
    connect_seconds: Span = Field(default=30.0, gt=0, le=3_600)
    timeout: Span = Field(default=60.0, gt=0, le=86_400)
    idle_seconds: Span = Field(default=300.0, ge=1, le=86_400)
    max_bytes: int = Field(default=1_000_000, gt=0)
    tools: dict[str, ToolOverride] = {}

    @property
    def transport(self) -> Literal["stdio", "http"]:
        """How it is spoken to."""
        return "stdio" if self.command is not None else "http"

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return self.url or " ".join(self.command or ())

    def override(self, tool: str) -> ToolOverride:
        """What holds for a tool; the careful default where nothing is said."""
        return self.tools.get(tool) or ToolOverride()

    @field_validator("auth")
    @classmethod
    def _by_reference(cls, auth: str | None) -> str | None:
        if auth is not None and not REFERENCE.fullmatch(auth):
            raise ValueError("must name a variable of the environment, such as ${GITHUB_TOKEN}, not be the token")
        return auth

    @field_validator("env")
    @classmethod
    def _plain_environment(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of an environment variable")
            refuse_secret(f"env.{name}", name, value)
        return env

    @field_validator("headers")
    @classmethod
    def _plain_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or any(ord(letter) < 32 for letter in value):
                raise ValueError(f"{name!r} and its value are no HTTP header")
            refuse_secret(f"headers.{name}", name, value)
        return headers

    @field_validator("command")
    @classmethod
    def _a_program(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is None:
            return None
        if not words or not words[0].strip():
            raise ValueError("must begin with a program, such as [npx, some-server]")
        for word in words:
            name, given, value = word.partition("=")
            if REFERENCE.search(word) or KNOWN.search(word) or (given and value and secret_name(name)):
                raise ValueError(
                    "would show a secret to everybody on the machine: give it in `env:`, such as API_KEY: ${API_KEY}"
                )
        return words

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address such as https://mcp.example.com/mcp")
        if "@" in parts.netloc or REFERENCE.search(url) or KNOWN.search(url):
            raise ValueError("holds a secret: give it as `auth: ${NAME}` or in `headers:`")
        return url

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give exactly one of `command` (a program) and `url` (an address)")
        if self.url is None and (self.auth is not None or self.headers):
            raise ValueError("`auth` and `headers` go with a `url`; a command has `env`")
        if self.command is None and (self.env or self.cwd is not None):
            raise ValueError("`env` and `cwd` go with a `command`; a url has `auth` and `headers`")
        if self.auth is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("`auth` and the header Authorization say the same: leave one out")
        secret = self.auth is not None or any(REFERENCE.search(value) for value in self.headers.values())
        if self.url is not None and secret and not _protected(self.url):
            raise ValueError("would send a secret in the open: use https (http only to this machine)")
        return self

    @model_validator(mode="after")
    def _probes_read(self) -> Self:
        for name, override in self.tools.items():
            probe = override.probe.tool if override.probe is not None else None
            if probe is not None and self.override(probe).side_effect != "read":
                raise ValueError(
                    f"tools.{name}.probe asks the tool {probe!r}, which is not said to read: add "
                    f"`{probe}: {{side_effect: read}}` below `tools:`"
                )
        return self


Servers = dict[str, Server]


def named(servers: Servers) -> Servers:
    """The servers of a configuration, each with its name. ValueError for a name that cannot be."""
    for name, server in servers.items():
        if not NAME.fullmatch(name) or "__" in name:
            raise ValueError(
                f"{name!r} is no name of a server: a small letter, then up to 30 small letters, digits, - and single _"
            )
        if server.name not in ("", name):
            raise ValueError(f"{name}.name is {server.name!r}: leave `name` out, the key is the name")
    return {name: server.model_copy(update={"name": name}) for name, server in servers.items()}


def environment_of(server: Server, environ: Mapping[str, str]) -> dict[str, str]:
    """What `env` adds to a command's environment, references resolved. PermanentError as `headers_of` does."""
    return {name: _resolve(server, f"env.{name}", value, environ) for name, value in server.env.items()}


def headers_of(server: Server, environ: Mapping[str, str]) -> dict[str, str]:
    """The headers of requests to a url, references resolved, with `auth` among them.

    PermanentError (`not_made`) names the variable that is not there.
    """
    headers = {name: _resolve(server, f"headers.{name}", value, environ) for name, value in server.headers.items()}
    if server.auth is not None:
        headers["Authorization"] = f"Bearer {_resolve(server, 'auth', server.auth, environ)}"
    return headers


def missing_variables(server: Server, environ: Mapping[str, str]) -> list[str]:
    """Names that the declaration refers to and the environment does not have."""
    return missing_in([*server.env.values(), *server.headers.values(), server.auth or ""], environ)


def _resolve(server: Server, where: str, text: str, environ: Mapping[str, str]) -> str:
    for name in missing_in([text], environ):
        raise PermanentError(
            f"capabilities.{server.name}.{where} refers to ${{{name}}}, which the environment of this process does "
            f"not have: set {name} where the runtime is started",
            code="not_made",
        )
    return resolved(text, environ)


def _protected(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
