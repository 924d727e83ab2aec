"""Business rules: pure functions with names that say what is wrong with an answer, or with the arguments of a call.

Owns what a rule is, how it is read from what a definition lists, and what came of asking some. Knows no model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal

from retinue.runs.determinism import refuse_side_doors
from retinue.runs.errors import InvalidInput

Check = Callable[[Any], str | None]
"""Takes the typed answer (or the arguments of a call) and returns the problem in words, or None."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by name. An `error` refuses, a `warning` lowers the confidence; `tool`: of whose calls it judges the
    arguments, instead of the answer."""

    name: str
    check: Check
    severity: Severity = "error"
    tool: str | None = None

    @property
    def fingerprint(self) -> str:
        """What a version is told from: changed code is another rule."""
        code = getattr(self.check, "__code__", None)
        return f"{self.name}/{self.severity}/{self.tool}/{'' if code is None else _spelled(code)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule said: its problem, or None when it passed."""

    rule: Rule
    problem: str | None


def rule(
    check: Check | None = None, *, name: str = "", severity: Severity = "error", tool: Any = None
) -> Rule | Callable[[Check], Rule]:
    """Make a pure function a rule of an agent or workflow: `rule(cites, severity="warning")`, or as a decorator.

    `tool` (a tool or its name): judge the arguments (a dict, as the tool will see them) of that tool's calls. A
    problem is returned, or raised as ValueError. InvalidInput for what is no function of one value, has no name, or
    uses time, randomness or I/O.
    """
    if check is None:
        return lambda function: _made(function, name, severity, tool)
    return _made(check, name, severity, tool)


def read_rules(what: str, listed: Iterable[Rule | Check]) -> tuple[Rule, ...]:
    """The rules that a definition lists; names are unique among them. InvalidInput names `what` and the rule."""
    try:
        found = tuple(one if isinstance(one, Rule) else _made(one, "", "error", None) for one in listed)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from None
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{what}: two rules are named {twice!r}: give one another name with rule(..., name=...)")
    return found


def ask(rules: Iterable[Rule], value: Any) -> tuple[Finding, ...]:
    """What each rule says of a value. InvalidInput when a rule itself is broken: that is not the model's fault."""
    return tuple(Finding(one, _said(one, value)) for one in rules)


def _spelled(code: CodeType) -> str:
    """Code as text that is the same in every process: functions inside have no address in it."""
    constants = [_spelled(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return f"{code.co_code.hex()}{code.co_names}{constants}"


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _said(one: Rule, value: Any) -> str | None:
    try:
        problem = one.check(value)
    except (ValueError, AssertionError) as error:
        return str(error) or type(error).__name__
    except Exception as error:
        raise InvalidInput(f"rule {one.name!r} raised {type(error).__name__}: {error}; mend the rule") from error
    if problem is not None and not isinstance(problem, str):
        raise InvalidInput(f"rule {one.name!r} returned {problem!r}: return the problem in words, or None")
    return problem or None


def _made(check: Any, name: str, severity: Any, tool: Any) -> Rule:
    name = name or getattr(check, "__name__", "")
    if not callable(check) or inspect.iscoroutinefunction(check):
        raise InvalidInput(f"rule {name or check!r}: give a plain function of one value that returns a problem or None")
    if not name or name == "<lambda>":
        raise InvalidInput("a rule needs a name: use a function with one, or rule(..., name=...)")
    if severity not in ("error", "warning"):
        raise InvalidInput(f"rule {name!r}: severity is {severity!r}; it is 'error' or 'warning'")
    if inspect.isfunction(check):
        _check_function(name, check)
    tool = tool if tool is None or isinstance(tool, str) else tool.capability.name
    return Rule(name, check, severity, tool)


def _check_function(name: str, check: Callable[..., Any]) -> None:
    try:
        inspect.signature(check).bind(None)
    except TypeError:
        raise InvalidInput(f"rule {name!r} is called with one value: give it one parameter") from None
    try:
        refuse_side_doors(check)
    except InvalidInput:
        raise InvalidInput(
            f"rule {name!r} uses time, randomness or I/O: a rule is a pure function of what it is given"
        ) from None
