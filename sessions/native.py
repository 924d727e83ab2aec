"""Native tools: plain Python functions under a capability's contract.

Owns the decorator and how JSON reaches a function and comes back. Knows no gate, no timeout and no journal:
those are the gateway's and the run's.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypedDict, TypeVar, Unpack, get_type_hints

import pydantic
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from retinue.runs.capabilities import Caller, CallResult, Capability, Idempotency, SideEffect
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.runs.resources import Resources
from retinue.runs.sessions import Link
from retinue.sessions.catalog import Arguments, Invocation
from retinue.sessions.complaints import explain_arguments
from retinue.sessions.results import cap_result
from retinue.sessions.signatures import KEY, Signature, name_function, read_signature

P = ParamSpec("P")
R = TypeVar("R")


class Contract(TypedDict, total=False):
    """What `@tool` may say. `probe` tells whether a reconcilable call has happened; see docs/tools.md."""

    side_effect: SideEffect
    idempotency: Idempotency
    probe: Callable[..., Any]
    name: str
    description: str
    timeout: float
    sensitivity: Literal["public", "internal", "confidential", "secret"]
    max_bytes: int
    version: str
    owner: str
    stage: Literal["shadow", "canary", "full"]
    durable: bool
    needs: Resources


@dataclass(frozen=True, slots=True)
class Probe:
    """A function that tells whether a call has happened, from its key, its caller and its arguments."""

    function: Callable[..., Any]
    arguments: frozenset[str]
    wants_key: bool
    caller: str | None

    def invoke(self, named: dict[str, Any], caller: Caller) -> Invocation:
        """The question, not yet asked."""
        given = {name: value for name, value in named.items() if name in self.arguments}
        if self.wants_key:
            given[KEY] = caller.key
        if self.caller is not None:
            given[self.caller] = caller
        return Invocation(functools.partial(self.function, **given), not inspect.iscoroutinefunction(self.function))


class NativeTool(Generic[P, R]):
    """A function with its contract; calling it calls the plain function, without gate or journal."""

    def __init__(
        self, function: Callable[P, R], signature: Signature, capability: Capability, probe: Probe | None
    ) -> None:
        """Made by `tool`, which checks that these belong together."""
        functools.update_wrapper(self, function)
        self.function = function
        self.capability = capability
        self.origin = name_function(function)
        self._signature = signature
        self._blocking = not inspect.iscoroutinefunction(function)
        self._probe = probe

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.capability.name!r} from {self.origin}>"

    def accept(self, arguments: Arguments) -> Arguments:
        """See `Tool.accept`. Arguments are taken strictly: `"5"` is no integer."""
        model = self._signature.model
        values = self._read(arguments)
        accepted: Arguments = model.__pydantic_serializer__.to_python(values, mode="json", by_alias=True)
        return accepted

    def invoke(self, arguments: Arguments, caller: Caller, link: Link | None = None) -> Invocation:
        """See `Tool.invoke`. A function has nothing to say to its run."""
        named = self._signature.bind(self._read(arguments))
        if self._signature.wants_key:
            named[KEY] = caller.key
        if self._signature.caller is not None:
            named[self._signature.caller] = caller
        return Invocation(functools.partial(self.function, **named), self._blocking)

    def invoke_probe(self, arguments: Arguments, caller: Caller) -> Invocation | None:
        """See `Tool.invoke_probe`."""
        if self._probe is None:
            return None
        return self._probe.invoke(self._signature.bind(self._read(arguments)), caller)

    def shape(self, outcome: object) -> CallResult:
        """See `Tool.shape`."""
        return cap_result(self.capability, self._signature.output, outcome)

    def _read(self, arguments: Arguments) -> pydantic.BaseModel:
        validator = self._signature.model.__pydantic_validator__
        try:
            values: pydantic.BaseModel = validator.validate_json(to_json(arguments), strict=True)
            return values
        except ValidationError as error:
            problem = explain_arguments(self.capability.name, self.capability.input_schema, error)
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            problem = f"tool {self.capability.name!r}: arguments are not JSON: {error}. Send a JSON object."
        raise PermanentError(problem, code="invalid_arguments") from None


def tool(**contract: Unpack[Contract]) -> Callable[[Callable[P, R]], NativeTool[P, R]]:
    """Make a function a capability: `@tool(side_effect="read")`.

    Schemas come from the type hints, the description from the docstring. A keyword-only `key: str` receives
    the idempotency key and a keyword-only parameter of type Caller the caller; neither is an argument. A
    write names its `idempotency`; `reconcilable` needs a `probe`. Raises InvalidInput naming the function,
    what is wrong and the remedy.
    """

    def wrap(function: Callable[P, R]) -> NativeTool[P, R]:
        where = name_function(function)
        _check_contract(where, contract)
        _refuse_generators(where, function)
        signature = read_signature(function)
        probe = _read_probe(where, contract.get("probe"), signature)
        return NativeTool(function, signature, _build_capability(where, function, signature, contract), probe)

    return wrap


def _check_contract(where: str, contract: Contract) -> None:
    for name in contract:
        if name not in Contract.__annotations__:
            close = difflib.get_close_matches(name, Contract.__annotations__, 1)
            known = ", ".join(Contract.__annotations__)
            _refuse(
                where,
                f"@tool knows no {name!r}",
                f"Did you mean {close[0]!r}?" if close else f"Known: {known}.",
            )
    effect = contract.get("side_effect")
    if effect not in ("read", "draft", "write"):
        _refuse(where, f"side_effect is {effect!r}", 'Say what it changes: "read", "draft" or "write".')
    stage = contract.get("stage", "full")
    if stage not in ("shadow", "canary", "full"):
        _refuse(where, f"stage is {stage!r}", 'Say "shadow", "canary" or "full"; `retinue rollout stop` stops it.')
    idempotency = contract.get("idempotency")
    if effect == "write" and idempotency is None:
        _refuse(
            where,
            "it writes and names no idempotency",
            'Say "idempotent" (the same key may be sent again), "reconcilable" (a probe tells whether it '
            'happened) or "at_most_once" (never repeated on doubt).',
        )
    if effect != "write" and idempotency is not None:
        _refuse(where, f"idempotency on a {effect}", "Only a write has an idempotency contract: leave it out.")
    if idempotency == "reconcilable" and contract.get("probe") is None:
        _refuse(where, "it is reconcilable and has no probe", "Give probe=FUNCTION, or another idempotency.")
    if idempotency != "reconcilable" and contract.get("probe") is not None:
        _refuse(where, "it has a probe and is not reconcilable", 'Say idempotency="reconcilable".')


def _refuse_generators(where: str, function: Callable[..., Any]) -> None:
    if not inspect.isfunction(function):
        _refuse(where, "it is no plain function", "Decorate a def or an async def at module level.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        _refuse(where, "it yields its result bit by bit", "Return a list.")


def _build_capability(where: str, function: Callable[..., Any], signature: Signature, contract: Contract) -> Capability:
    settings: dict[str, Any] = {name: value for name, value in contract.items() if name != "probe"}
    settings.setdefault("name", function.__name__)
    settings.setdefault("description", inspect.getdoc(function) or function.__name__.replace("_", " "))
    try:
        return Capability(**settings, input_schema=signature.input_schema(), output_schema=signature.output_schema())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        _refuse(where, f"{field} is {first['input']!r}: {first['msg']}", f"Correct {field} in @tool(...).")


def _read_probe(where: str, given: Callable[..., Any] | None, signature: Signature) -> Probe | None:
    if given is None:
        return None
    function = given.function if isinstance(given, NativeTool) else given
    if not callable(function):
        _refuse(where, f"probe is {function!r}", "Give a function.")
    if signature.output_type is None or signature.output_type is type(None):
        _refuse(
            where,
            "it returns None, which is also a probe's 'it has not happened'",
            "Return an id or a record.",
        )
    if KEY in signature.parameters:
        _refuse(where, "a probe's 'key' would be its argument 'key'", "Rename that argument.")
    hints = get_type_hints(function)
    names = inspect.signature(function).parameters
    callers = [name for name in names if hints.get(name) is Caller]
    for name, parameter in names.items():
        known = name == KEY or name in callers or name in signature.parameters
        if not known and parameter.default is inspect.Parameter.empty:
            _refuse(
                where,
                f"its probe {name_function(function)} takes {name!r}, which the tool does not",
                f"It may take 'key', a Caller and the tool's {', '.join(signature.parameters)}.",
            )
    return Probe(
        function=function,
        arguments=frozenset(names) & frozenset(signature.parameters),
        wants_key=KEY in names,
        caller=callers[0] if callers else None,
    )


def _refuse(where: str, problem: str, remedy: str) -> NoReturn:
    raise InvalidInput(f"tool {where}: {problem}. {remedy}")
