"""The keys of `retinue.yaml`: their names, types, bounds and defaults. Each key's reader is in docs/configuration.md.

Plain data. Knows neither the file nor what the settings build.
"""

from __future__ import annotations

import getpass
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from retinue.runs.breakers import BreakerPolicy
from retinue.runs.contracts import Budget, Frozen
from retinue.runs.limits import Limits
from retinue.runs.patience import Patience, Span
from retinue.runs.sessions import SessionPolicy
from retinue.sandbox.extending import Extension, profiles_of
from retinue.sessions.servers import Servers, named

POLICY = Path("policy")
_PLACE = r"^(s3://[^/?#@\s]+(/[^?#\s]*)?|file:///[^\s]+)$"
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_PASSWORD = re.compile(r"^[^:]+://[^/?#]*?:([^@/?#]+)@|[?&]password=([^&#]+)")


def _user() -> str:
    """The name the operating system knows the user by; `local` where it knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "local"


class Retry(Frozen):
    """How often a transient failure is tried, and the pauses (s) between: full jitter up to base * 2**n."""

    attempts: int = Field(default=4, ge=1, le=100)
    base: float = Field(default=0.5, gt=0, le=3600)
    cap: float = Field(default=60.0, gt=0, le=86_400)


class Policy(Frozen):
    """`folder` holds `*.cedar` rules (the shipped defaults when nobody names one and there is none);
    `kill_switch` is a file whose existence denies everything. `reload` is how often (s) changed rules are looked for
    (0: never), `approval_lasts` how long (s) an approval counts after it was given."""

    folder: Path = POLICY
    precheck_required: bool = True
    kill_switch: Path | None = None
    reload: Span = Field(default=2.0, ge=0, le=86_400)
    approval_lasts: Span = Field(default=86_400.0, ge=1, le=31_536_000)


class Pool(Frozen):
    """How a pool of actors follows what waits for it: between `min` and `max` actors of `capacity` runs each.

    It grows while its actors are full and the oldest has waited for `grow_after` seconds, and lets go what has held
    nothing for `shrink_after` seconds. None: what the pool has by nature.
    """

    min: int | None = Field(default=None, ge=0, le=10_000)
    max: int | None = Field(default=None, ge=1, le=10_000)
    capacity: int | None = Field(default=None, ge=1, le=100_000)
    placement: Literal["spread", "pack"] = "spread"
    grow_after: Span = Field(default=1.0, ge=0, le=86_400)
    shrink_after: Span = Field(default=60.0, ge=1, le=86_400)

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class Actors(Frozen):
    """How many actors host top-level runs and children, how many runs each holds, and how long (s) one may
    be silent before its runs are taken over.

    `cancel_grace` is how long (s) what a canceled run has in flight may take to stop. `pools` says more, by the name
    of a pool, its readable part, or `*` for those of definitions with needs.
    """

    runs: int = Field(default=1, ge=1, le=1_000)
    workers: int = Field(default=2, ge=1, le=10_000)
    capacity: int = Field(default=256, ge=1, le=100_000)
    lease_seconds: float = Field(default=15.0, ge=1, le=3_600)
    cancel_grace: Span = Field(default=10.0, ge=0.1, le=3_600)
    pools: dict[str, Pool] = {}

    @field_validator("pools")
    @classmethod
    def _some_for_everybody(cls, pools: dict[str, Pool]) -> dict[str, Pool]:
        for name in ("runs", "workers"):
            if name in pools and pools[name].min == 0:
                raise ValueError(f"{name}.min is 0: every project needs one; leave it out or give 1 or more")
        return pools


class Models(Frozen):
    """`prices`: full model name to dollars per million [input, output] tokens. `keys`: base URL of an
    OpenAI-compatible endpoint to the environment variable that holds its key."""

    prices: dict[str, tuple[Decimal, Decimal]] = {}
    keys: dict[str, str] = {}

    @field_validator("prices", mode="before")
    @classmethod
    def _no_binary_money(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            name: [str(part) if isinstance(part, float) else part for part in pair]
            if isinstance(pair, list | tuple)
            else pair
            for name, pair in value.items()
        }


class Traces(Frozen):
    """`memory_limit` is a size DuckDB knows, such as `1GB`; `query_timeout` is in seconds. `archive` is a place as
    `blobs` is, that the tables are kept in as Parquet, looked after every `archive_every` (a time span)."""

    memory_limit: str = Field(default="1GB", pattern=r"^\d+(\.\d+)?\s?([KMGT]i?B)$")
    query_timeout: float = Field(default=30.0, gt=0, le=86_400)
    archive: str | None = Field(default=None, pattern=_PLACE)
    archive_every: Span = Field(default=900.0, ge=1, le=86_400)


class Alerts(Frozen):
    """Who is told of alerts, and when there is one (durations in seconds, or text such as `1h`).

    `webhook_secret` names the environment variable with the key that bodies are signed with. `command` is a program
    with its arguments, given the alert on stdin.
    """

    webhook: str | None = Field(default=None, pattern=r"^https?://\S+$")
    webhook_secret: str | None = Field(default=None, min_length=1)
    command: tuple[str, ...] = ()
    waits_older_than: Span = Field(default=3600.0, gt=0, le=31_536_000)
    traces_lag: Span = Field(default=60.0, gt=0, le=86_400)
    every: Span = Field(default=10.0, ge=0.01, le=3_600)

    @field_validator("command")
    @classmethod
    def _a_program(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and not words[0].strip():
            raise ValueError("must begin with a program, such as [notify-send, Retinue]")
        return words


class Sandbox(Frozen):
    """`folder` holds manifests, NAME.yaml. `profiles` are a project's own, by name; each extends another. `backend` is
    the name of one, or `auto`: the strongest that is fit. `snapshots` is a place as `blobs` is, `snapshot_limit` a size
    for each tenant; a snapshot that nothing needs any more is kept for `keep` (a time span). `uids` is the range of
    users that sandboxes are given where the host runs as root.
    """

    folder: Path = Path("sandbox")
    profiles: dict[str, Extension] = {}
    backend: str = Field(default="auto", pattern=r"^[a-z][a-z0-9_-]*$")
    snapshots: str | None = Field(default=None, pattern=_PLACE)
    snapshot_limit: str = Field(default="20GiB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")
    keep: Span = Field(default=604_800.0, ge=0, le=31_536_000)
    uids: str = Field(default="600000-665535", pattern=r"^\d{4,10}-\d{4,10}$")

    @field_validator("profiles")
    @classmethod
    def _resolvable(cls, profiles: dict[str, Extension]) -> dict[str, Extension]:
        profiles_of(profiles)
        return profiles


class Telemetry(Frozen):
    """`emit_structured_events` keeps the trace tables and the OTLP export; the journal is kept in any case."""

    emit_structured_events: bool = True


class Keys(Frozen):
    """Every key that `retinue.yaml` may have. docs/configuration.md says what each does and who reads it."""

    modules: tuple[str, ...] = ()
    data: Path = Path(".retinue")
    store: str | None = Field(default=None, pattern=r"^postgres(ql)?://\S+$")
    store_key: str | None = Field(default=None, min_length=1)
    blobs: str | None = Field(default=None, pattern=_PLACE)
    default_model: str = Field(default="builtin:extractive", min_length=1)
    tenant: str = Field(default="default", min_length=1)
    principal: str = Field(default_factory=_user, min_length=1)
    budget: Budget = Budget()
    max_tool_hops: int | None = Field(default=None, ge=0)
    durability: Literal["normal", "strict"] = "normal"
    model_timeout: float = Field(default=120.0, gt=0, le=86_400)
    context_tokens: int = Field(default=24_000, ge=256)
    retry: Retry = Retry()
    policy: Policy = Policy()
    roles: dict[str, tuple[str, ...]] = {}
    enable_background_updates: bool = True
    actors: Actors = Actors()
    cluster: str | None = None
    models: Models = Models()
    capabilities: Servers = {}
    otlp: str | None = Field(default=None, pattern=r"^https?://\S+$")
    redact: tuple[str, ...] = ()
    limits: Limits = Limits()
    requests: Patience = Patience()
    breakers: BreakerPolicy = BreakerPolicy()
    alerts: Alerts = Alerts()
    telemetry: Telemetry = Telemetry()
    traces: Traces = Traces()
    sandbox: Sandbox = Sandbox()
    capability_sessions: SessionPolicy = SessionPolicy()

    @field_validator("modules")
    @classmethod
    def _importable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{name!r} is no import path: write `agents` or `package.agents`, without .py")
        return names

    @field_validator("capabilities")
    @classmethod
    def _with_names(cls, servers: Servers) -> Servers:
        return named(servers)

    @field_validator("store")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        found = _PASSWORD.search(url or "")
        if found and not _REFERENCE.fullmatch(found[1] or found[2]):
            raise ValueError("holds a password; name a variable of the environment instead: ${STORE_PASSWORD}")
        return url

    @field_validator("store_key")
    @classmethod
    def _by_reference(cls, key: str | None) -> str | None:
        if key is not None and not _REFERENCE.fullmatch(key):
            raise ValueError("must name a variable of the environment, such as ${STORE_KEY}, not be the key")
        return key

    @field_validator("roles")
    @classmethod
    def _somebody(cls, roles: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for role, names in roles.items():
            if not _ROLE.fullmatch(role):
                raise ValueError(f"{role!r} cannot be named by a rule: use letters, digits, `_`, `-` and `.`")
            if not names or not all(name.strip() for name in names):
                raise ValueError(f"{role!r} needs the names of those who have it, such as [ana, bob]")
        return roles

    @field_validator("budget")
    @classmethod
    def _one_limit_of_hops(cls, budget: Budget) -> Budget:
        if budget.hops is not None:
            raise ValueError("`hops` of every run is set by `max_tool_hops`; write it there")
        return budget
