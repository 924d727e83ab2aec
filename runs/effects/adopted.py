"""Adopted functions: agents of other frameworks, whose requests are steps of the run.

The function runs on the host's loop and is not deterministic, so what it asks for is recognised by its content: the
n-th request with the same content is the same step, whenever it comes. After a crash the function is called again
from its beginning and finds in the journal what has ended. When all it does is wait for a person or for long, it is
stopped, the run parks, and the function is called again when the wait is over. Steps inside belong to the runtime
(`!` in their keys) and are not delivered.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from retinue.runs.contracts import ErrorInfo, Json
from retinue.runs.doors import Doors, DoorsClosed
from retinue.runs.effects import models, plain, queued, retrying
from retinue.runs.effects.run import Run
from retinue.runs.errors import BudgetExhausted, ConfigError, PermanentError, RetinueError, StoreError, TransientError
from retinue.runs.identity import digest_of
from retinue.runs.journal import EffectKind, Outcome
from retinue.runs.messages import ModelRequest, ToolSpec
from retinue.runs.piecewise import dump, load
from retinue.runs.steps import Command, Done, Wait, cut_short, error_info, intent_of, outcome_of

_LOG = logging.getLogger("retinue.runs")
_AT_ONCE = 64
"""Requests of one function that are carried out at the same time."""
_QUIET = 0.05
"""Seconds without a request after which a function that waits for a person is stopped."""
_PATIENCE = 5.0
"""Seconds that a function has to end when it is stopped."""
_CONTENT = {"model", "messages", "tools", "output_schema", "output_name", "parameters", "max_tokens"}
"""What of a model request makes it the same request."""

_PERFORMERS: dict[EffectKind, Callable[[Run, Command], Awaitable[Done | Wait]]] = {
    "model": models.perform,
    "call": queued.perform,
    "step": plain.perform,
}


async def perform(run: Run, command: Command) -> Done | Wait:
    """Call the function, again from its beginning when it was stopped or its owner died."""
    waiting = retrying.due(run, command)
    if waiting is not None:
        return waiting
    if run.services.endpoint is None:
        raise ConfigError(f"{command.name} cannot be adopted here: this host has no model endpoint")
    if command.key not in run.history.intents:
        run.note(intent_of(command, run.services.now_ns()))
    adoption = Adoption(run, command)
    async with run.services.endpoint.open(adoption) as access:
        ended = await adoption.carry(Doors(access, adoption))
    if isinstance(ended, Done):
        settle_lost(run, command.key)
        run.history.forget_inside(command.key)
    return ended


def settle_lost(run: Run, key: str) -> None:
    """Put an end on record for what was begun inside and will not be asked for again."""
    now = run.services.now_ns()
    for intent in run.history.unfinished_inside(key):
        cut = cut_short(intent, now)
        run.ledger.settle(intent.key, cut.usage)
        run.note(cut)


class Adoption:
    """One call of an adopted function: what it asks for, what of that waits, and how it ends. A `Keeper`."""

    def __init__(self, run: Run, command: Command) -> None:
        self.request = run.request
        self.model = run.request.model or run.services.defaults.model
        self._run = run
        self._command = command
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._asked: Counter[str] = Counter()
        self._steps: dict[str, Command] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waits: dict[str, Wait] = {}
        self._exhausted: ErrorInfo | None = None
        self._closed = False
        self._replayed = 0

    # -- the doors (Keeper) --------------------------------------------------------------------------------

    async def complete(self, request: ModelRequest) -> Outcome:
        """A model call. The turn is told from the conversation, so that it is the same in every call."""
        self._run.services.models.profile(request)
        told = [message.content for message in request.messages if message.role == "user"]
        asked = request.model_copy(
            update={
                "timeout": self._run.services.defaults.model_timeout,
                "run_id": self.request.run_id,
                "agent": self.request.target,
                "turn": sum(message.role == "assistant" for message in request.messages),
                "input_id": self.request.input_id,
                "input_text": told[0] if told else "",
            }
        )
        options = {"request": asked, "prompt": None, "stream": self.request.route == "stream"}
        content = request.model_dump(mode="json", include=_CONTENT)
        return await self._ask("model", request.model, content, options)

    async def call(self, tool: str, arguments: dict[str, Json]) -> Outcome:
        """A capability call."""
        self._run.services.gateway.capability(tool)
        return await self._ask("call", tool, arguments, {})

    async def step(self, function: Callable[..., Any], arguments: list[Json], repeatable: bool) -> Outcome:
        """A plain function."""
        name = getattr(function, "__qualname__", repr(function))
        return await self._ask("step", name, arguments, {"function": function, "repeatable": repeatable})

    def tools(self) -> tuple[ToolSpec, ...]:
        """The capabilities of the project."""
        return tuple(tool.capability.spec for tool in self._run.services.registry.tools.values())

    # -- one call of the function --------------------------------------------------------------------------

    async def carry(self, doors: Doors) -> Done | Wait:
        """Let the function run until it has ended, only waits, has no budget left, or takes too long."""
        task = self._loop.create_task(_call(self._command, doors))
        timeout = self._command.options["timeout"]
        try:
            await asyncio.wait({task, self._stop}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            ran = task.done()
            self._closed = True
            await _ended(self._command, task)
            while self._tasks:
                await asyncio.wait(self._tasks.values())
        except asyncio.CancelledError:
            self._closed = True
            for inside in self._tasks.values():
                inside.cancel()
            await _ended(self._command, task)
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            settle_lost(self._run, self._command.key)
            raise
        finally:
            for step in self._steps.values():
                step.future.cancel()
        return self._verdict(task, ran)

    def _verdict(self, task: asyncio.Task[Json], ran: bool) -> Done | Wait:
        if self._exhausted is not None:
            return Done(result="error", error=self._exhausted, facts=self._facts())
        if ran:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if isinstance(error, TransientError):
                return retrying.after(self._run, self._command, error)
            return self._done(task.result()) if error is None else self._failed(error)
        if self._waits:
            return _first_of(self._waits)
        limit = self._command.options["timeout"]
        message = f"{self._command.name} was stopped after {limit:g} s; raise `timeout` of ctx.adopt if it needs more"
        return self._failed(PermanentError(message, code="timeout"))

    def _done(self, value: object) -> Done:
        try:
            return Done(value=load(dump(value)), facts=self._facts())
        except ValueError as error:
            message = f"{self._command.name} returned what is not JSON: {error}"
            return self._failed(PermanentError(message, code="invalid_output"))

    def _failed(self, error: BaseException) -> Done:
        if not isinstance(error, RetinueError):
            message = f"{self._command.name} raised {type(error).__name__}: {error}"
            error = PermanentError(message, code="raised")
        return Done(result="error", error=error_info(error), facts=self._facts())

    def _facts(self) -> dict[str, Json]:
        return {"asked": len(self._steps) + self._replayed, "replayed": self._replayed}

    # -- one step inside -----------------------------------------------------------------------------------

    async def _ask(self, effect: EffectKind, name: str, content: Json, options: dict[str, Any]) -> Outcome:
        self._check()
        text = json.dumps([effect, name, content], sort_keys=True, separators=(",", ":"))
        digest = digest_of(text)
        place = f"{self._command.key}!{'model' if effect == 'model' else name}/{digest}"
        key = f"{place}#{self._asked[place]}"
        recorded = self._run.history.outcomes.get(key)
        if recorded is None and len(self._tasks) >= _AT_ONCE:
            raise TransientError(f"{_AT_ONCE} requests of {self._command.name} are under way", code="busy")
        self._asked[place] += 1
        if recorded is not None:
            self._replayed += 1
            return self._answer(recorded)
        step = self._steps[key] = Command(
            key=key,
            effect=effect,
            name=name,
            digest=digest,
            arguments=content,
            future=self._loop.create_future(),
            options=options,
            interrupted=self._run.history.interrupted(key),
        )
        self._tasks[key] = self._loop.create_task(self._carry_out(step))
        try:
            return self._answer(await asyncio.shield(step.future))
        except asyncio.CancelledError:
            if step.future.cancelled():
                raise self._gone() from None
            raise

    def _check(self) -> None:
        if self._closed:
            raise self._gone()
        if self._exhausted is not None:
            raise BudgetExhausted(self._exhausted.message, run_id=self.request.run_id)

    def _gone(self) -> DoorsClosed:
        return DoorsClosed(
            f"{self._command.name} of run {self.request.run_id} has been stopped: nothing is done for it"
        )

    def _answer(self, outcome: Outcome) -> Outcome:
        """The budget's end is the run's end, whatever the function makes of it; it has a moment to stop by itself."""
        if outcome.error is not None and outcome.error.reason == BudgetExhausted.reason:
            if self._exhausted is None:
                self._exhausted = outcome.error
                self._loop.call_later(self._run.services.retry.in_memory, self._stop_now)
            self._check()
        return outcome

    async def _carry_out(self, step: Command) -> None:
        try:
            ended = await self._perform(step)
            if isinstance(ended, Wait):
                self._waits[step.key] = ended
                return
            outcome = outcome_of(step, ended, 0, self._run.services.now_ns())
            self._run.ledger.settle(step.key, ended.usage)
            await self._run.write(outcome)
            if not step.future.done():
                step.future.set_result(outcome)
        except StoreError:
            step.future.cancel()  # the execution has been told, and ends
        finally:
            del self._tasks[step.key]
            self._loop.call_later(_QUIET, self._stop_if_only_waiting)

    async def _perform(self, step: Command) -> Done | Wait:
        try:
            while isinstance(ended := await _PERFORMERS[step.effect](self._run, step), Wait):
                pause = self._pause(ended)
                if pause is None:
                    break
                await asyncio.sleep(pause)
            return ended
        except StoreError:
            raise
        except Exception as error:  # an effect's error is its outcome
            return Done(result="error", error=error_info(error))

    def _pause(self, wait: Wait) -> float | None:
        """Seconds to wait in memory; None when the run should rather park."""
        if wait.at is None or wait.request is not None:
            return None
        pause = max((wait.at - self._run.services.now_ns()) / 1e9, 0.0)
        return pause if pause <= self._run.services.retry.in_memory else None

    def _stop_if_only_waiting(self) -> None:
        if self._waits and not self._tasks:
            self._stop_now()

    def _stop_now(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)


async def _call(command: Command, doors: Doors) -> Json:
    try:
        return await command.options["function"](doors, *command.arguments)
    except SystemExit as error:
        raise PermanentError(f"{command.name} called exit({error.code})", code="raised") from None


async def _ended(command: Command, task: asyncio.Task[Json]) -> None:
    """Stop the function; one that will not be stopped is left behind its closed doors."""
    task.cancel()
    await asyncio.wait({task}, timeout=_PATIENCE)
    if not task.done():
        _LOG.warning("%s ignores that it was canceled; it goes on without its doors", command.name)
    elif not task.cancelled():
        task.exception()  # looked at: what it raised while it was stopped counts for nothing


def _first_of(waits: dict[str, Wait]) -> Wait:
    """One wait for all: until the first moment, or until the first request is answered."""
    moments = [wait.at for wait in waits.values() if wait.at is not None]
    asking = next((wait for wait in waits.values() if wait.request is not None), None)
    first = asking or next(iter(waits.values()))
    return Wait(first.reason, at=min(moments, default=None), request=first.request, session=first.session)
