"""Capabilities as the run sees them: what can be called, under which contract, and the door to it.

Owns the specification of a capability, the idempotency contracts and the port of the gateway. Knows
nothing of how a capability is executed: native functions and remote servers look the same from here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen, Json
from retinue.runs.gate import Approval, GateDecision, Stage
from retinue.runs.messages import ToolSpec
from retinue.runs.resources import Resources
from retinue.runs.sessions import Link, Pause

REFUSED = frozenset({"saturated", "deadline", "version"})
"""Codes for calls that the gateway refused to make."""
NOT_MADE = REFUSED | {"not_made"}
"""Codes for calls that surely changed nothing: they were refused, or the tool says so (`not_made`)."""

SANDBOX = "sandbox"
"""The source of capabilities that work in a sandbox of the run."""

SideEffect = Literal["read", "draft", "write"]
Idempotency = Literal["idempotent", "reconcilable", "at_most_once"]


class Capability(Frozen):
    """A named thing that agents may call.

    `side_effect`: `read` changes nothing, `draft` changes what nobody else sees yet, `write` changes the
    world. `idempotency` is the contract of a write: `idempotent` (the same key may be sent again),
    `reconcilable` (a probe tells whether it happened), `at_most_once` (never repeated on doubt). `timeout`
    is in seconds, `max_bytes` caps the JSON of a result. `key_argument` says that the idempotency key is
    passed to it.
    """

    name: str = Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_.-]{0,63}$")
    description: str
    input_schema: dict[str, Json]
    output_schema: dict[str, Json] | None = None
    side_effect: SideEffect = "write"
    idempotency: Idempotency = "at_most_once"
    sensitivity: Literal["public", "internal", "confidential", "secret"] = "internal"
    timeout: float = Field(default=30.0, gt=0)
    max_bytes: int = Field(default=1_000_000, gt=0)
    owner: str = ""
    version: str = "1"
    stage: Literal["shadow", "canary", "full", "stopped"] = "full"
    source: str = "native"
    durable: bool = False
    """A read whose outcome must be committed before the run goes on (`durability: strict` for one tool)."""
    needs: Resources | None = None
    """What it needs of the process that executes it: agents that have it need it too, workflows declare it."""

    @property
    def spec(self) -> ToolSpec:
        """As a model is told of it."""
        return ToolSpec(name=self.name, description=self.description, input_schema=self.input_schema)

    @property
    def server(self) -> str | None:
        """The server that has it (`source` is `mcp:NAME`); None for what is executed by this process."""
        return self.source.removeprefix("mcp:") if self.source.startswith("mcp:") else None

    @property
    def repeatable(self) -> bool:
        """True when it may be executed again though its first outcome is unknown."""
        return self.side_effect != "write" or self.idempotency == "idempotent"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made, and the tokens that make a repeated call recognisable.

    `key` is the stable idempotency key of the effect, `epoch` the fencing token of the owner, `deadline`
    (Unix ns) the moment after which the executing side must not apply the effect any more.
    """

    run_id: str
    root_run_id: str
    tenant_id: str
    principal_id: str
    agent: str
    route: str
    depth: int
    key: str
    epoch: int
    deadline: int
    traceparent: str
    budget: dict[str, int]
    facts: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call whose arguments are valid. `digest` is the hash of name, version and arguments."""

    capability: Capability
    arguments: dict[str, Json]
    digest: str


@dataclass(frozen=True, slots=True)
class Concerned:
    """As what a call stands before the gate: at which stage, of which resource, with which side effect."""

    stage: Stage
    resource: str
    side_effect: SideEffect


def concerned(capability: Capability, caller: Caller) -> Concerned:
    """A call in a sandbox is judged by its manifest (a fact of the caller); where it can reach out, it may write."""
    effect = capability.side_effect
    if capability.source != SANDBOX:
        return Concerned("capability", capability.name, effect)
    outside = caller.facts.get("network") != "none" or caller.facts.get("confined") is not True
    if outside and effect == "draft":
        effect = "write"
    return Concerned("sandbox", str(caller.facts.get("manifest", "")), effect)


FULL_OUTPUT = "full_output"
"""Topic of the record that keeps a result that was too large to go on with; read only when it is asked for."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A result as it was before the cap: its JSON, the bytes of that, and their SHA-256 (hex)."""

    value: Json
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CallResult:
    """A valid result. `size` is the bytes of its JSON; `cut` says that the cap cut the value short, `full` is then
    what was returned, where it is not out of all measure.
    """

    value: Json
    size: int
    cut: bool = False
    full: Whole | None = None


class Gateway(Protocol):
    """The one door to every capability. The run journals between `decide` and `execute`.

    `prepare` and `decide` are pure and cheap. `execute` raises TransientError or PermanentError (codes
    `timeout`, `raised`, `too_large`, `invalid_output`, ...) and never anything else but cancellation.
    """

    def capability(self, name: str) -> Capability:
        """The specification; UnknownName with close matches otherwise."""
        ...

    def prepare(self, name: str, arguments: dict[str, Json]) -> Prepared:
        """Validate arguments; PermanentError(code="invalid_arguments") names field, value and remedy."""
        ...

    def decide(self, call: Prepared, caller: Caller, approval: Approval | None) -> GateDecision:
        """Ask the gate whether this caller may make this call now."""
        ...

    async def execute(self, call: Prepared, caller: Caller, link: Link | None = None) -> CallResult | Pause:
        """Make the call within its timeout and the caller's deadline, or go on with one as `link` says; validate and
        cap what comes back. A Pause: it has to be told something first. Native tools never pause."""
        ...

    async def probe(self, call: Prepared, caller: Caller) -> CallResult | None:
        """Whether a reconcilable call with this key has happened: its result, or None when it has not."""
        ...

    async def release(self, run_id: str, ended: bool) -> None:
        """This process executes a run no longer: it has `ended`, or waits. Bounded; raises nothing."""
        ...

    def end_session(self, run_id: str, server: str) -> None:
        """The run's session with this server was closed: let go of what only it used there. Does not wait."""
        ...

    def held_sessions(self) -> Collection[tuple[str, str]]:
        """(run, server) of what this process holds for single runs: connections, and calls that wait for a person."""
        ...

    async def close(self) -> None:
        """Let go of everything that calls have opened. Bounded; raises nothing."""
        ...
