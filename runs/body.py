"""The body of a run: one call of its function, on a deterministic loop of its own.

It is what the function's context speaks to: it makes commands with keys of what the function asks for, holds them
against the history, and lets the function run on with what came of them, recorded or new. Writes no journal but
through the run, and does not know how an effect is performed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from retinue.runs import replay
from retinue.runs.contracts import Json
from retinue.runs.definitions import Definition
from retinue.runs.determinism import SCOPE, body_loop
from retinue.runs.effects.run import Run
from retinue.runs.errors import ReplayMismatch
from retinue.runs.identity import digest_of
from retinue.runs.journal import EffectKind, Outcome, Record
from retinue.runs.starting import start
from retinue.runs.steps import Command


class Body:
    """One call of the function: the first, or the one after a checkpoint. The Executor of its context.

    `commands`: what it has asked for and not been given, by key; `next`: the name and state to continue as new with;
    `say` takes its records; `live`: from the start it says what is not in the journal yet.
    """

    def __init__(
        self, run: Run, outer: asyncio.AbstractEventLoop, say: Callable[[Record], None], live: bool = False
    ) -> None:
        self.request = run.request
        self.services = run.services
        self.commands: dict[str, Command] = {}
        self.next: tuple[str, Json] | None = None
        self.activation = 0
        self._run = run
        self._say = say
        self._history = run.history
        self._live = live
        self._loop = body_loop(run.history.started_at / 1e9, outer)
        self._task: asyncio.Task[Any] | None = None
        self._issued: list[Command] = []
        self._ordinals: dict[str, int] = {}
        self._records = 0
        self._mismatch: ReplayMismatch | None = None
        self._abandoned = False

    # -- the run's side --------------------------------------------------------------------------------------

    @property
    def ended(self) -> asyncio.Task[Any] | None:
        """The function's task once it has returned or raised."""
        return self._task if self._task is not None and self._task.done() else None

    def begin(self, definition: Definition, input: Json, state: Json) -> None:
        """Make the call; nothing of it runs before `replay` or `run_on`."""
        self._task = self._loop.start_body(start(definition, self, input, state))

    def replay(self) -> None:
        """Bring the function to where it was. Raises ReplayMismatch where the code asks for something else."""
        self.run_on()
        self.activation = replay.deliver(self.request.run_id, self._history, self.commands, self.run_on)
        self._issued = list(self.commands.values())
        self._live = True

    def run_on(self, at: int | None = None) -> None:
        """Let the function run until it can do nothing more, as of a time (Unix ns). Raises ReplayMismatch."""
        if at is not None:
            self._loop.now = at / 1e9
        self._loop.run_until_quiet()
        if self._mismatch is not None:
            raise self._mismatch

    def deliver(self, ended: list[tuple[Command, Outcome]], at: int) -> None:
        """Hand over what came of commands, all at one moment, and let the function run on."""
        for command, outcome in ended:
            self.commands.pop(command.key)
            self._history.forget(command.key)
            replay.hand_over(command, outcome)
        self.run_on(at)

    def issued(self) -> list[Command]:
        """What the function has asked for since it was last looked at."""
        issued, self._issued = self._issued, []
        return issued

    def end(self) -> None:
        """End the call for the next to begin. Raises ReplayMismatch when it still waits for something."""
        if self.commands:
            pending = ", ".join(self.commands)
            raise ReplayMismatch(f"run {self.request.run_id}: checkpoint while {pending} is in flight; await it before")
        self.abandon()

    def abandon(self) -> None:
        """End the function's tasks; they reach nothing any more."""
        self._abandoned = True
        self._loop.abandon()

    # -- the function's side ---------------------------------------------------------------------------------

    async def issue(self, effect: EffectKind, name: str, arguments: Json, options: dict[str, Any]) -> Outcome:
        """Called by the context on the function's loop: ask for an effect and wait for its outcome."""
        if self._abandoned:
            raise asyncio.CancelledError
        place = f"{SCOPE.get()}/{name}"
        ordinal = self._ordinals[place] = self._ordinals.get(place, -1) + 1
        command = Command(
            key=f"{self._history.checkpoint}{place}#{ordinal}",
            effect=effect,
            name=name,
            digest=digest_of(arguments),
            arguments=arguments,
            future=self._loop.create_future(),
            options=options,
        )
        self._match(command)
        self.commands[command.key] = command
        self._issued.append(command)
        outcome: Outcome = await command.future
        return outcome

    def record(self, topic: str, facts: dict[str, Json], content: Json) -> None:
        """Called by the context: a record of the function; on replay the journal has it already."""
        self._records += 1
        if self._records > self._history.records or self._live:
            self._say(Record(at=self.services.now_ns(), topic=topic, facts=facts, content=content))

    async def continue_as_new(self, name: str, state: Json) -> Any:
        """Called by the context: end this call of the function, begin the next with `state`."""
        self.next = (name, state)
        return await self._loop.create_future()

    def definition(self, target: Definition | str) -> Definition:
        """Called by the context: what a child would run."""
        return self._run.definition(target)

    def now_ns(self) -> int:
        """Called by the context: the time of the newest delivery, Unix ns."""
        return int(self._loop.now * 1e9)

    def _match(self, command: Command) -> None:
        mismatch = replay.mismatch(self.request.run_id, self._history, command)
        if mismatch is not None:
            self._mismatch = mismatch
            raise asyncio.CancelledError
