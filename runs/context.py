"""The context: what a workflow's function may do, and the only way to an effect.

Every method that awaits is a journaled step, keyed by branch, name and ordinal. Knows nothing of how a step
is carried out; it hands commands to the execution and waits for them.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from retinue.runs.contracts import OWN_FACTS, Branch, Budget, Json, RunRequest
from retinue.runs.definitions import Definition, ToolLike, parse_as, type_of
from retinue.runs.determinism import SCOPE
from retinue.runs.errors import (
    InvalidInput,
    RunFailed,
)
from retinue.runs.executor import Executor
from retinue.runs.joins import Join, all_of, seconds
from retinue.runs.journal import Outcome
from retinue.runs.outputs import Check
from retinue.runs.patience import Duration, patience
from retinue.runs.piecewise import dump, load
from retinue.runs.remembering import Remembers
from retinue.runs.sandbox_handles import UsesSandboxes
from retinue.runs.sources import Source
from retinue.runs.values import value_of

NO_DEFAULT = object()
"""Says that a question has no default; None is one."""


class Context(Remembers, UsesSandboxes):
    """Given to every workflow as its first argument."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._random: random.Random | None = None
        self.checks: tuple[Check, ...] = ()

    @property
    def request(self) -> RunRequest:
        """Who this run is: ids, tenant, principal, budget, version."""
        return self._executor.request

    # -- effects -----------------------------------------------------------------------------------------

    async def call(self, tool: ToolLike | str, /, **arguments: Json) -> Any:
        """Call a capability through the gateway; returns its result as JSON.

        Raises PolicyDenied, SideEffectUnknown, or the EffectError (Transient or Permanent) it ended with.
        """
        name = tool if isinstance(tool, str) else tool.capability.name
        outcome = await self._executor.issue("call", name, arguments, {})
        return value_of(outcome)

    async def step(self, function: Callable[..., Any], /, *arguments: Json, repeatable: bool = True) -> Any:
        """Run a plain function with effects as one durable step; its result must be JSON.

        With `repeatable=False` it is not run again after a crash while it runs: a person is asked whether it
        happened, and SideEffectUnknown is raised when the answer is `fail` or nobody answers in time.
        """
        name = getattr(function, "__qualname__", repr(function))
        options = {"function": function, "repeatable": repeatable}
        return value_of(await self._executor.issue("step", name, list(arguments), options))

    async def adopt(
        self, function: Callable[..., Awaitable[Any]], /, *arguments: Json, timeout: float | str = "1h"
    ) -> Any:
        """Run an agent of another framework, or any async function, behind the run's gateways.

        It is called as `function(doors, *arguments)` (see `Doors`) on an ordinary event loop and returns JSON.
        After a crash or a wait it is called again from its beginning: what it asked for through the doors is
        answered from the journal, the rest of what it does happens again. `timeout` bounds one call of it.
        """
        if not inspect.iscoroutinefunction(function):
            raise InvalidInput(f"ctx.adopt({function!r}): give it an `async def` function that takes (doors, ...)")
        options = {"function": function, "timeout": seconds(timeout)}
        name = getattr(function, "__qualname__", repr(function))
        return value_of(await self._executor.issue("adopt", name, list(arguments), options))

    async def run(self, target: Definition | str, input: Any, budget: Budget | None = None) -> Any:
        """Run a child and return its output. Raises RunFailed with the child's reason when it failed."""
        definition = self._executor.definition(target)
        outcome = await self._children(definition, [input], budget=budget)
        branch: Branch = value_of(outcome)[0]
        if not branch.ok:
            text = f"{definition.name}: {branch.problem}"
            failure = RunFailed(text, run_id=branch.run_id, reason=branch.reason.value)
            failure.step = outcome.key
            raise failure
        return typed(definition, branch.value)

    def spawn(self, target: Definition | str, input: Any, budget: Budget | None = None) -> asyncio.Task[Any]:
        """Start a child and go on; await the task for its output."""
        return asyncio.ensure_future(self.run(target, input, budget))

    async def map(
        self,
        target: Definition | str,
        items: Sequence[Any] | Source,
        join: Join | None = None,
        window: int | None = None,
        enough: Callable[[list[Branch]], bool] | None = None,
    ) -> list[Branch]:
        """Run a child for every item, at most `window` at a time; returns one Branch an item, in order.

        A failed branch is a value. `join` says when to go on: `all_of()` (default), `first_success()`,
        `quorum(k)`, `best_effort(deadline)`; branches that had not ended by then are absent and canceled.
        `enough` is a pure function that looks at the ended branches whenever one is added: True goes on too.
        """
        definition = self._executor.definition(target)
        if not isinstance(items, Source) and not items:
            return []
        branches: list[Branch] = value_of(
            await self._children(definition, items, join=join, window=window, enough=enough)
        )
        return branches

    async def gather(
        self, name: str, calls: Mapping[str, tuple[Definition | str, Any]], join: Join | None = None
    ) -> dict[str, Branch]:
        """Run different targets as one group called `name`: `calls` gives target and input by label.

        Returns one Branch by label, in order. Failed branches and `join` are as in `map`.
        """
        labels, targets = list(calls), [self._executor.definition(target) for target, _ in calls.values()]
        if not labels:
            return {}
        items = [input for _, input in calls.values()]
        outcome = await self._children(targets[0], items, join=join, name=name, definitions=tuple(targets))
        return {labels[branch.index]: branch for branch in value_of(outcome)}

    async def relay(self, target: Definition | str, input: Any) -> Branch:
        """Run a child that may pass the run on: if it hands off, its Branch has the reason `handoff`, the
        receiver in `facts["to"]` and the artifact as its value, and nobody is run until you do.
        """
        outcome = await self._children(self._executor.definition(target), [input], relayed=True)
        branch: Branch = value_of(outcome)[0]
        return branch

    async def count(
        self, target: Definition | str, items: Source, window: int | None = None, budget: Budget | None = None
    ) -> dict[str, int]:
        """Like `map` for more items than memory should hold: returns {total, ok, failed, rejected} only."""
        definition = self._executor.definition(target)
        outcome = await self._children(definition, items, window=window, budget=budget, count=True)
        value_of(outcome)
        return {name: int(outcome.facts[name]) for name in ("total", "ok", "failed", "rejected")}

    async def write_rows(self, key: str, into: str, of: str | None = None) -> dict[str, int]:
        """Write the ended children of a group as one file of a place that all machines reach, in order; returns
        {written, rejected}. The group is this run's, or that of the run `of`.

        `into` is the file's URL, ending in .jsonl or .parquet; it appears whole, and again the same when repeated.
        Inputs that could not become a run go to a file of that name with `.dead.jsonl` behind it.
        """
        arguments = [of or self.request.run_id, key, into]
        counts: dict[str, int] = value_of(
            await self._executor.issue("step", "write_rows", arguments, {"part": True, "repeatable": True})
        )
        return counts

    async def ask(
        self,
        prompt: str,
        /,
        *,
        timeout: Duration | None = None,
        default: Any = NO_DEFAULT,
        to: str | None = None,
        escalate: tuple[Duration, str] | None = None,
        **facts: Json,
    ) -> Any:
        """Ask a person; returns what they answered. The run waits in the inbox, holding nothing.

        `to` names who should answer; `escalate=("30m", "lead")` passes the question on when nobody has by then.
        After `timeout` the answer is `default`; without one PermanentError (code `no_answer`) is raised.
        `facts` stand with the question; InvalidInput when one has the name of one of the runtime's own. The fact
        `schema`, a JSON Schema, is held against the answer where it is given.
        """
        options: dict[str, Any] = {"patience": patience(timeout, to, escalate)}
        if default is not NO_DEFAULT:
            options["default"] = default
        return value_of(await self._executor.issue("input", "ask", _question(prompt, facts), options))

    async def approve(
        self,
        prompt: str,
        /,
        *,
        timeout: Duration | None = None,
        to: str | None = None,
        escalate: tuple[Duration, str] | None = None,
        **facts: Json,
    ) -> bool:
        """Ask a person for a yes or no; no answer within `timeout` is a no. `facts` are as in `ask`."""
        options = {"patience": patience(timeout, to, escalate)}
        return bool(value_of(await self._executor.issue("approval", "approve", _question(prompt, facts), options)))

    async def put_to_person(self, name: str, prompt: str, facts: dict[str, Json]) -> Outcome:
        """A question of the runtime's own, with facts of its own; what came of it, also that nobody answered."""
        return await self._executor.issue("input", name, {"prompt": prompt, "facts": facts}, {})

    async def sleep(self, duration: float | str | timedelta) -> None:
        """Wait durably: seconds, or text such as `90s`, `5m`, `2h`, `1d`."""
        until = self._executor.now_ns() + int(seconds(duration) * 1e9)
        await self._executor.issue("timer", "sleep", {"until": until}, {})

    async def until(self, moment: datetime) -> None:
        """Wait durably until a moment (with a time zone)."""
        if moment.tzinfo is None:
            raise InvalidInput(f"ctx.until({moment!r}) needs a time zone: use datetime(..., tzinfo=UTC)")
        await self._executor.issue("timer", "until", {"until": int(moment.timestamp() * 1e9)}, {})

    async def event(self, name: str) -> Any:
        """Wait for the next event of that name; events that arrived before are kept in order."""
        return value_of(await self._executor.issue("event", name, {"event": name}, {}))

    def checkpoint(self, name: str, state: Any) -> Awaitable[NoReturn]:
        """Continue as new: the function is called again with this state, and replay starts here.

        Use it as `await ctx.checkpoint("page", state)`: nothing after it runs. Only at the top of the function,
        with nothing in flight.
        """
        if SCOPE.get():
            raise InvalidInput(f"checkpoint {name!r} inside a branch: a checkpoint belongs to the top of the function")
        return self._executor.continue_as_new(name, self._carried(name, state))

    # -- what needs no waiting ---------------------------------------------------------------------------

    def now(self) -> datetime:
        """The time of the newest outcome the function has seen (UTC): the same on replay."""
        return datetime.fromtimestamp(self._executor.now_ns() / 1e9, tz=UTC)

    @property
    def random(self) -> random.Random:
        """Randomness that is the same on replay."""
        if self._random is None:
            self._random = random.Random(self.request.seed or self.request.run_id)
        return self._random

    def check(self, name: str, good: float, of: int) -> None:
        """Say how much of something this function has looked at was good, such as ("agreement", 2, 3).

        What it returns is as sure as the weakest of its checks since the newest checkpoint (`min_confidence`).
        """
        if not 0 <= good <= of or of < 1:
            raise InvalidInput(f"ctx.check({name!r}, {good}, {of}): give how many were good, and of how many")
        self.checks = (*self.checks, Check(name, good, of))

    def record(self, topic: str, content: Json = None, /, **facts: Json) -> None:
        """Write something worth knowing into the journal, for traces. Facts are plain, content is sealed."""
        self._executor.record(topic, facts, content)

    def _carried(self, name: str, state: Any) -> Any:
        """The state as a resumed call would read it from the journal."""
        try:
            return load(dump(to_json_value(state)))
        except ValueError as error:
            raise InvalidInput(f"checkpoint {name!r}: the state is not JSON: {error}; pass plain data") from None

    async def _children(
        self, definition: Definition, items: Sequence[Any] | Source, name: str = "", **options: Any
    ) -> Outcome:
        several: tuple[Definition, ...] = options.get("definitions", ())
        target: Json = [one.name for one in several] if several else definition.name
        if isinstance(items, Source):
            arguments: Json = {"target": target, "source": items.model_dump(mode="json")}
        else:
            items = [to_json_value(item) for item in items]
            arguments = {"target": target, "items": items}
        options = {**options, "definition": definition, "items": items, "join": options.get("join") or all_of()}
        return await self._executor.issue("children", name or definition.name, arguments, options)


def _question(prompt: str, facts: dict[str, Json]) -> dict[str, Json]:
    taken = sorted(OWN_FACTS.intersection(facts))
    if taken:
        raise InvalidInput(
            f"question {prompt!r}: the fact {taken[0]} has the name of one that the runtime keeps with questions: "
            f"call it otherwise, such as my_{taken[0]}"
        )
    return {"prompt": prompt, "facts": facts}


def typed(definition: Definition, value: Json) -> Any:
    """A child's output as the type its definition declares."""
    if type_of(definition.output) is Any:
        return value
    return parse_as(definition.output, value, f"output of {definition.name}")


def to_json_value(value: Any) -> Json:
    """A value as JSON: pydantic models and dataclasses become objects. InvalidInput when it cannot be."""
    from_model = getattr(value, "model_dump", None)
    if from_model is not None:
        return from_model(mode="json")
    return value
