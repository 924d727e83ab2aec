"""What users write: agents and workflows as plain data and functions.

Owns the definitions and their versions; `runs/registry.py` finds them in their modules. Code travels by import
path, never by pickle. Knows no model and no tool in use: a tool is anything with a `capability`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from typing import Any, ClassVar, Literal, Protocol, get_type_hints, overload, runtime_checkable

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from retinue.runs.capabilities import Capability
from retinue.runs.contracts import NO_LIMITS, Budget, Json
from retinue.runs.determinism import refuse_side_doors
from retinue.runs.errors import InvalidInput
from retinue.runs.memories import REMEMBER, Scope, read_scopes
from retinue.runs.options import DEFAULT_COMPACTION, Compaction, Prompt, Reset
from retinue.runs.outputs import Terms, read_terms, rules_of, version_part
from retinue.runs.resources import Resources
from retinue.runs.rules import Rule
from retinue.runs.sandboxes import AGENT_TOOLS


@runtime_checkable
class ToolLike(Protocol):
    """Anything agents can be given: it carries the specification of a capability."""

    @property
    def capability(self) -> Capability: ...


@dataclass(frozen=True)
class AgentSpec:
    """A model in a loop with tools, limits and a typed answer. Made by `agent(...)`."""

    name: str
    instructions: Prompt | str
    tools: tuple[ToolLike | str, ...] = ()
    input: Any = None
    output: Any = None
    model: str | None = None
    budget: Budget = NO_LIMITS
    handoffs: tuple[str, ...] = ()
    follow_ups: tuple[Workflow | str, ...] = ()
    parameters: dict[str, Json] = field(default_factory=dict)
    max_tokens: int = 1024
    corrections: int = 2
    asks: bool = False
    plans: bool = False
    compaction: Compaction | None = DEFAULT_COMPACTION
    reset: Reset | None = None
    queue: str = ""
    needs: Resources | None = None
    rules: tuple[Rule, ...] = ()
    min_confidence: float | None = None
    memory: tuple[Scope, ...] = ()
    sandbox: str | None = None
    explicit_version: str | None = None
    stage: Literal["shadow", "canary", "full"] = "full"
    kind: ClassVar[Literal["agent"]] = "agent"

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of its capabilities, those of its sandbox last."""
        names = tuple(tool if isinstance(tool, str) else tool.capability.name for tool in self.tools)
        return names if self.sandbox is None else (*names, *AGENT_TOOLS)

    @cached_property
    def version(self) -> str:
        """The explicit version, or `~` and a digest of the definition."""
        text = self.instructions.text if isinstance(self.instructions, Prompt) else self.instructions
        parts = (
            self.name,
            text,
            self.tool_names,
            repr(self.output),
            self.model,
            self.handoffs,
            self.parameters,
        )
        context = (self.plans, self.compaction, self.reset)
        chosen = () if context == (False, DEFAULT_COMPACTION, None) else context
        capabilities = [tool.capability for tool in self.tools if not isinstance(tool, str)]
        remote = [(one.name, one.version, one.description) for one in capabilities if one.source != "native"]
        held = (*version_part(self.rules, self.min_confidence), *self.memory, *filter(None, (self.sandbox,)))
        return self.explicit_version or version_of(repr((*parts, *chosen, *remote, *held)))

    @property
    def terms(self) -> Terms:
        """What its answer has to be."""
        return Terms(self.output, self.rules, self.min_confidence)

    @cached_property
    def output_schema(self) -> dict[str, Json] | None:
        """JSON Schema of the answer; None for free text."""
        return None if self.output is None else TypeAdapter(self.output).json_schema()


@dataclass(frozen=True)
class Workflow:
    """A deterministic async function over a context. Made by `@workflow` or a pattern.

    `parts` are what it was composed of: definitions, known to the project with it, or names; `boundaries`
    name its checkpoints and say what each means.
    """

    name: str
    function: Callable[..., Awaitable[Any]]
    input: Any
    output: Any
    takes_state: bool
    budget: Budget = NO_LIMITS
    follow_ups: tuple[Workflow | str, ...] = ()
    explicit_version: str | None = None
    parts: tuple[AgentSpec | Workflow | str, ...] = ()
    boundaries: tuple[tuple[str, str], ...] = ()
    queue: str = ""
    needs: Resources | None = None
    rules: tuple[Rule, ...] = ()
    min_confidence: float | None = None
    kind: ClassVar[Literal["workflow"]] = "workflow"
    stage: ClassVar[Literal["full"]] = "full"

    def __call__(self, *args: Any, **options: Any) -> Awaitable[Any]:
        """The plain function, for tests of its own."""
        return self.function(*args, **options)

    @cached_property
    def version(self) -> str:
        """The explicit version, or `~` and a digest of the code."""
        code = self.function.__code__
        held = "".join(map(repr, version_part(self.rules, self.min_confidence)))
        return self.explicit_version or version_of(f"{self.name}{code.co_code.hex()}{code.co_names}{held}")

    @property
    def terms(self) -> Terms:
        """What its output has to be."""
        declared = type_of(self.output)
        return Terms(None if declared is Any else declared, self.rules, self.min_confidence)


Definition = AgentSpec | Workflow


def agent(name: str, instructions: Prompt | str, **options: Any) -> AgentSpec:
    """Define an agent.

    Options: `tools` (tools or names), `input` and `output` (types; the answer is free text without one),
    `model` (full name; the configuration's default otherwise), `budget`, `handoffs` (names of agents it may
    pass the run to), `follow_ups` (workflows that run after its answer with {input, output, run_id}),
    `parameters` (sent to the model as they are), `max_tokens`, `corrections` (how often a bad decision or
    answer is returned to the model), `asks` (it may ask a person), `plans` (it keeps track of what it owes),
    `compaction` (when its history is shortened: `Compaction(at=0.8, keep_turns=4)`; None: never), `reset` (when it
    starts afresh: `Reset(turns=40)`; never by default), `queue` (whose limits in `limits:` its runs keep; else that of
    what starts it), `needs` (`Resources(gpus=1)`: what its runs need of the place they run in; what its tools need is
    added), `rules` (pure functions that say what is wrong with an answer, or `rule(function, tool=...)` with the
    arguments of a call), `min_confidence` (0 to 1: a person decides on an answer whose checks come to less),
    `memory` (scopes, such as `("agent", "principal")`: what is recalled of them stands in the context, and the model
    may propose memories with the tool `remember`), `sandbox` (the name of a manifest: the tools `shell`,
    `python`, `read_file`, `write_file`, `edit_file` and `list_files`, all on one sandbox of its run), `version`,
    `stage` (`shadow`, `canary` or `full`: how far this version is let out, docs/rollout.md).
    """
    options["explicit_version"] = options.pop("version", None)
    for listed in ("tools", "handoffs", "follow_ups"):
        options[listed] = tuple(options.get(listed, ()))
    unknown = set(options) - set(AgentSpec.__dataclass_fields__)
    if unknown:
        known = ", ".join(sorted(set(AgentSpec.__dataclass_fields__) - {"name", "instructions", "explicit_version"}))
        raise InvalidInput(f"agent {name!r}: unknown option {sorted(unknown)[0]!r}; there are {known}, version")
    options |= read_terms(f"agent {name!r}", options)
    options["memory"] = read_scopes(f"agent {name!r}", options.get("memory", ()))
    spec = AgentSpec(name, instructions, **options)
    if spec.stage not in ("shadow", "canary", "full"):
        raise InvalidInput(f"agent {name!r}: stage is {spec.stage!r}; there are shadow, canary, full")
    for tool in spec.tools:
        if not isinstance(tool, str | ToolLike):
            raise InvalidInput(f"agent {name!r}: {tool!r} is no tool; decorate the function with @tool(...)")
    if spec.memory and REMEMBER in spec.tool_names:
        raise InvalidInput(f"agent {name!r} has a memory and a tool named {REMEMBER!r}: give the tool another name")
    _check_sandbox(spec)
    if spec.output is not None:
        _adapter(f"agent {name!r}: output", spec.output)
        rules_of(spec.output)
    return spec


def _check_sandbox(spec: AgentSpec) -> None:
    if spec.sandbox is None:
        return
    if not isinstance(spec.sandbox, str) or not spec.sandbox:
        raise InvalidInput(f"agent {spec.name!r}: sandbox is {spec.sandbox!r}: give the name of a manifest")
    own = {tool if isinstance(tool, str) else tool.capability.name for tool in spec.tools}
    taken = sorted(own.intersection(AGENT_TOOLS))
    if taken:
        raise InvalidInput(
            f"agent {spec.name!r} has a sandbox and a tool named {taken[0]!r}: give the tool another name"
        )


@overload
def workflow(function: Callable[..., Awaitable[Any]]) -> Workflow: ...


@overload
def workflow(function: None = None, **options: Any) -> Callable[[Callable[..., Awaitable[Any]]], Workflow]: ...


def workflow(function: Callable[..., Awaitable[Any]] | None = None, **options: Any) -> Any:
    """Define a workflow: `async def name(ctx, input) -> Output`, or with a third parameter `state` that
    `ctx.checkpoint` passes on. Options: `name`, `version`, `budget`, `follow_ups`, `queue`, `needs` (as for agents),
    `boundaries` (name and meaning of its checkpoints), `rules` and `min_confidence` (as for agents; what a rule refuses
    ends the run as `output_rejected`). InvalidInput when the function is not async or uses time,
    randomness or I/O directly.
    """

    def define(function: Callable[..., Awaitable[Any]]) -> Workflow:
        name = options.get("name", getattr(function, "__name__", ""))
        if not inspect.iscoroutinefunction(function):
            raise InvalidInput(f"workflow {name!r} must be an `async def` function")
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) not in (2, 3):
            raise InvalidInput(f"workflow {name!r} takes (ctx, input) or (ctx, input, state), not {parameters}")
        refuse_side_doors(function)
        return Workflow(
            name=name,
            function=function,
            input=_Hint(function, parameters[1]),
            output=_Hint(function, "return"),
            takes_state=len(parameters) == 3,
            budget=options.get("budget", Budget()),
            follow_ups=tuple(options.get("follow_ups", ())),
            explicit_version=options.get("version"),
            boundaries=tuple((name, meaning) for name, meaning in options.get("boundaries", ())),
            queue=options.get("queue", ""),
            needs=options.get("needs"),
            **read_terms(f"workflow {name!r}", options),
        )

    return define if function is None else define(function)


@dataclass(frozen=True)
class _Hint:
    """A type hint that is looked up when it is needed: names may be defined later in the module."""

    function: Callable[..., Any]
    name: str

    def resolve(self) -> Any:
        return _hints_of(self.function).get(self.name, Any)


@cache
def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


def type_of(hint: Any) -> Any:
    """The type behind an input or output declaration; Any when there is none."""
    return hint.resolve() if isinstance(hint, _Hint) else Any if hint is None else hint


def parse_as(hint: Any, value: Json, what: str) -> Any:
    """A JSON value as the declared type. InvalidInput names the field and the value."""
    try:
        return _adapter(what, type_of(hint)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the value"
        raise InvalidInput(f"{what}: {place}: {first['msg']} (got {str(first['input'])[:100]!r})") from None


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(what: str, hint: Any) -> TypeAdapter[Any]:
    try:
        if hint not in _ADAPTERS:
            _ADAPTERS[hint] = TypeAdapter(hint)
        return _ADAPTERS[hint]
    except PydanticSchemaGenerationError as error:
        raise InvalidInput(f"{what}: {hint!r} cannot be validated: {error}") from None


def version_of(text: str) -> str:
    """The version of what has no explicit one: `~` and a digest of its definition."""
    return "~" + blake2b(text.encode(), digest_size=6).hexdigest()
