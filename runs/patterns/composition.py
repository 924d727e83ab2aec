"""What the patterns share: parts by label, the workflow with its version and boundaries, branches as plain data.

A pattern's version is a digest of its kind, its parts and its settings, the same in every process. Pure.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, TypedDict

from pydantic import BaseModel

from retinue.runs.contracts import NO_LIMITS, Branch, Budget, Json
from retinue.runs.definitions import AgentSpec, Definition, Workflow, version_of
from retinue.runs.determinism import refuse_side_doors
from retinue.runs.errors import InvalidInput, ReplayMismatch, RunFailed
from retinue.runs.joins import Join
from retinue.runs.options import Prompt
from retinue.runs.outputs import read_terms, version_part
from retinue.runs.resources import Resources
from retinue.runs.rules import Check, Rule

Part = Definition | str
"""An agent or workflow, or the name of one."""

Body = Callable[[Any, Any, Any], Awaitable[Any]]

_PLAIN = (str, int, float, bool, bytes, type(None))


class Options(TypedDict, total=False):
    """What every pattern takes besides its own: as for `@workflow`."""

    version: str
    budget: Budget
    follow_ups: Sequence[Workflow | str]
    queue: str
    needs: Resources
    rules: Sequence[Rule | Check]
    min_confidence: float


@dataclass(frozen=True)
class Shape:
    """What a pattern is made of: its kind, parts by label, boundaries with their meaning, everything else that was
    set, and the declared types of its input and output.
    """

    kind: str
    parts: Mapping[str, Part]
    boundaries: tuple[tuple[str, str], ...]
    settings: tuple[Any, ...] = ()
    input: Any = None
    output: Any = None


def compose(name: str, body: Body, shape: Shape, options: Options) -> Workflow:
    """The workflow of a pattern. InvalidInput names a part or an option that cannot be one."""
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{shape.kind}({name!r}, ...): the first argument is the name of the workflow, a text")
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise InvalidInput(f"{shape.kind} {name!r}: unknown option {min(unknown)!r}; besides its own there are {known}")
    for label, part in shape.parts.items():
        check_part(f"{shape.kind} {name!r}: {label!r}", part)
    terms = read_terms(f"{shape.kind} {name!r}", dict(options))
    held = version_part(terms["rules"], terms["min_confidence"])
    return Workflow(
        name=name,
        function=body,
        input=shape.input,
        output=shape.output,
        takes_state=True,
        budget=options.get("budget", NO_LIMITS),
        follow_ups=tuple(options.get("follow_ups", ())),
        explicit_version=options.get("version") or _version(name, shape, held),
        parts=tuple(shape.parts.values()),
        boundaries=shape.boundaries,
        queue=options.get("queue", ""),
        needs=options.get("needs"),
        **terms,
    )


def check_part(what: str, part: Any) -> None:
    """InvalidInput unless it is an agent, a workflow, or a name."""
    if not isinstance(part, AgentSpec | Workflow | str) or part == "":
        raise InvalidInput(f"{what} is {part!r}: give an agent, a workflow, or the name of one")


def check_count(what: str, value: Any, least: int) -> None:
    """InvalidInput unless it is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{what} is {value!r}: give a whole number, at least {least}")


def check_functions(what: str, functions: Iterable[Any]) -> None:
    """InvalidInput for what is no plain function, or one that cannot be replayed: it runs inside the workflow."""
    for function in functions:
        if not callable(function) or not hasattr(function, "__qualname__") or inspect.iscoroutinefunction(function):
            raise InvalidInput(f"{what}: {function!r} is no plain function; give a `def` or a lambda")
        if hasattr(function, "__code__"):
            refuse_side_doors(function)


def by_name(what: str, parts: Sequence[Part]) -> dict[str, Part]:
    """Parts by their own name; the second of one name is called `name 2`."""
    found: dict[str, Part] = {}
    for part in parts:
        check_part(what, part)
        name, number = name_of(part), 1
        label = name
        while label in found:
            number += 1
            label = f"{name} {number}"
        found[label] = part
    return found


def name_of(part: Part) -> str:
    """The name of what a part runs."""
    return part if isinstance(part, str) else part.name


def input_of(part: Any) -> Any:
    """The declared input of a part; None where only its name is known."""
    return part.input if isinstance(part, AgentSpec | Workflow) else None


def output_of(part: Any) -> Any:
    """The declared output of a part; None where only its name is known."""
    return part.output if isinstance(part, AgentSpec | Workflow) else None


def field_of(value: Any, name: str) -> Any:
    """A field of an object or of a model; None when there is none."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


@dataclass
class Heard:
    """The branches of a join, sorted: values of those that completed, problems of the others, by label.

    `first_reason` is that of the first branch that failed.
    """

    first_reason: str
    values: dict[str, Json] = field(default_factory=dict)
    problems: dict[str, dict[str, str]] = field(default_factory=dict)


def least_of(join: Join | None) -> int:
    """How many branches must complete for a pattern to go on: what its join needs, one at least."""
    return (join.need if join else None) or 1


def hear_all(count: int, branches: Iterable[Branch]) -> Heard:
    """Sort the branches of a fan-out over `count` items, labeled by their index."""
    return hear([str(index) for index in range(count)], {str(branch.index): branch for branch in branches})


def hear(labels: Sequence[str], branches: Mapping[str, Branch]) -> Heard:
    """Sort the branches; a label without one had not ended when the join went on."""
    failed = [branch for branch in branches.values() if not branch.ok]
    heard = Heard(failed[0].reason.value if failed else "canceled")
    for label in labels:
        branch = branches.get(label)
        if branch is not None and branch.ok:
            heard.values[label] = branch.value
        else:
            heard.problems[label] = _problem(branch)
    return heard


def require(what: str, heard: Heard, least: int) -> None:
    """RunFailed, with the reason of the first failed branch, when fewer than `least` completed."""
    if len(heard.values) >= least:
        return
    told = "; ".join(f"{label}: {problem['message']}" for label, problem in list(heard.problems.items())[:5])
    raise RunFailed(
        f"{what}: {len(heard.values)} of {len(heard.values) + len(heard.problems)} completed, {least} needed ({told})",
        reason=heard.first_reason,
    )


def known(what: str, label: str, labels: Iterable[str]) -> None:
    """ReplayMismatch when a checkpoint names a part that the pattern no longer has."""
    if label not in labels:
        raise ReplayMismatch(
            f"{what}: its checkpoint goes on with {label!r}, which the pattern no longer has ({', '.join(labels)}): "
            "bring that part back, or submit the run anew"
        )


def _problem(branch: Branch | None) -> dict[str, str]:
    if branch is None:
        return {"reason": "canceled", "message": "had not ended when the join went on"}
    return {"reason": branch.reason.value, "message": branch.problem}


def _version(name: str, shape: Shape, held: tuple[Any, ...]) -> str:
    parts = [f"{label}={_part_text(part)}" for label, part in shape.parts.items()]
    return version_of("\n".join([name, shape.kind, *parts, *map(_text, shape.settings), *map(repr, held)]))


def _part_text(part: Part) -> str:
    if isinstance(part, str):
        return part
    named = f"{part.kind} {part.name} {part.version} {part.budget.model_dump_json()}"
    if isinstance(part, Workflow):
        return named
    prompt = part.instructions.name if isinstance(part.instructions, Prompt) else ""
    return f"{named} {prompt} {part.input!r} {part.max_tokens} {part.corrections} {part.asks}"


def _text(value: Any) -> str:
    """A setting as text that is the same in every process."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if not callable(value):
        return repr(value)
    code = getattr(value, "__code__", None)
    if code is None:
        return f"{value.__module__}.{value.__qualname__}"
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    given = [one for one in (*(value.__defaults__ or ()), *cells) if isinstance(one, _PLAIN)]
    return f"{_code_text(code)}{given!r}"


def _code_text(code: CodeType) -> str:
    return f"{code.co_code.hex()}{code.co_names}({','.join(map(_constant, code.co_consts))})"


def _constant(value: Any) -> str:
    """A constant of compiled code; a set is sorted, since its order changes from process to process."""
    if isinstance(value, CodeType):
        return _code_text(value)
    if isinstance(value, frozenset):
        return "{" + ",".join(sorted(map(_constant, value))) + "}"
    if isinstance(value, tuple):
        return "(" + ",".join(map(_constant, value)) + ")"
    return repr(value)
