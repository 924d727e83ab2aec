"""The execution of one leased run: it brings the function to where it was and carries it on.

The function runs on its own deterministic loop and asks for effects; the execution journals and performs
them and delivers what came of them, in recorded order on replay and in order of completion live. When nothing
is left but waiting, it parks the run and is gone. Knows no store but the journal port, no Ray, no provider.

    issue ──▶ effect (gate, intent, act) ──▶ settle ──▶ outcome journaled ──▶ deliver ──▶ function runs on
                   └──▶ wait ──▶ news or time ──▶ the effect again, from its start
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from retinue.runs import admission, ending, replay, waiting
from retinue.runs.agent_state import AgentState
from retinue.runs.arrivals import Group, News
from retinue.runs.budgets import Ledger
from retinue.runs.context import to_json_value
from retinue.runs.contracts import Json
from retinue.runs.definitions import Definition
from retinue.runs.determinism import SCOPE, NotDeterministic, body_loop
from retinue.runs.effects import gates, perform
from retinue.runs.errors import (
    DeadlineExceeded,
    ReplayMismatch,
    RetinueError,
    RunCanceled,
    StoreError,
    StoreUnreachable,
)
from retinue.runs.history import fold
from retinue.runs.hostloop import Signal, host_loop
from retinue.runs.identity import digest_of
from retinue.runs.journal import (
    AnyEntry,
    Appended,
    Checkpoint,
    EffectKind,
    HostInfo,
    Leased,
    LeasedRun,
    Outcome,
    Record,
    Yield,
)
from retinue.runs.live_sessions import Sessions, Ways
from retinue.runs.ports import Services
from retinue.runs.recorder import Recorder
from retinue.runs.starting import start
from retinue.runs.steps import Command, Done, Wait, error_info, outcome_of


class Execution:
    """One run in its owner's hands. `drive` returns when the run has parked, ended, or changed owner."""

    def __init__(self, leased: LeasedRun, services: Services, host: HostInfo) -> None:
        self.leased = leased
        self.services = services
        self.history = fold(leased.frames, leased.started_at)
        self.request = self.history.amended(leased.request)
        self.news: News = leased.news
        self.ledger = Ledger(self.request.run_id, self.request.budget, self.history.spent)
        self.ledger.groups(leased.news.groups.values())
        self.commands: dict[str, Command] = {}
        self.waits: dict[str, Wait] = {}
        self.settled: list[tuple[Command, Done]] = []
        self._issued: list[Command] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.failure: BaseException | None = None
        self._recorder = Recorder(leased, services.journal, self._failed)
        self._recorder.note(_leased(leased, host, services.now_ns()))
        self.sessions = Sessions(Ways(self.request, services, self.history, self.note, self._recorder.keep))
        self._host_loop = host_loop()
        self._signal = Signal(self._host_loop)
        self._ordinals: dict[str, int] = {}
        self._records = 0
        self._activation = 0
        self._next: tuple[str, Json] | None = None
        self._live = False
        self._leaving = False
        self._closed = False
        self._body: asyncio.Task[Any] | None = None
        self._loop = body_loop(0.0, self._host_loop)

    # -- the host's side ---------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Carry the run on until it parks or ends. Raises StoreError when it cannot be written any more:
        Fenced when another owner has it.
        """
        try:
            await self._drive()
        except StoreError:
            raise
        except RetinueError as error:
            self._closed = True
            await ending.stop(self, self.tasks, self.settled)
            await ending.fail(self, error)
        finally:
            self._close()

    def take_group(self, group: Group) -> None:
        """Adopt what this owner itself changed of a group."""
        self.ledger.groups([group])
        self.news.groups[group.key] = group

    def take(self, news: News) -> None:
        """The host found news; may be called at any time on the host's loop."""
        self.news = news
        self.ledger.groups(news.groups.values())
        if self.sessions.used:
            self.sessions.hear(news)
        self._signal.set()

    def leave(self) -> None:
        """Give the run back to its queue as soon as nothing of it is in flight: its host is to end."""
        self._leaving = True
        self._signal.set()

    def flush(self) -> None:
        """Submit what has been buffered since the flush before: free steps ride along, but not for long."""
        if not self._closed:
            self._recorder.flush_stale(self.news.seq)

    async def _drive(self) -> None:
        self._guard()
        await self.services.rollouts.look()
        await replay.restore_branches(self.request.run_id, self.history, self.services.journal)
        self._start(self.history.state)
        self._replay()
        if self.sessions.used:
            self.sessions.hear(self.news)
        while not self._closed:
            self._guard()
            if (self.news.held or self._leaving) and not self.settled and self._running():
                if await self._let_go():
                    return
                continue
            self._admit()
            if self._next is not None:
                self._continue()
            elif self.settled:
                await self._deliver()
            elif self._body is not None and self._body.done() and not self.tasks:
                await ending.finish(self, self._body)
                return
            elif not self._retry_ready() and await self._rest():
                return

    def _running(self) -> bool:
        """True while the function waits for effects: it has neither ended nor asked to continue as new."""
        return self._next is None and self._body is not None and not self._body.done()

    async def _let_go(self) -> bool:
        """Held, or leaving its host: begin nothing more, and give it back when nothing is in flight."""
        if self.tasks:
            await self._signal.wait()
            self._signal.clear()
            return False
        topic = "held" if self.news.held else "drained"
        await self.write(Record(at=self.services.now_ns(), topic=topic, by="runtime"), end=Yield())
        return True

    async def _rest(self) -> bool:
        """Wait in memory while something is in flight or due soon, else park. True when parked."""
        if not self.tasks and not self.waits:
            raise NotDeterministic(
                f"run {self.request.run_id} waits for something that no effect brings, such as a lock or a future of "
                "its own: await what `ctx` gives"
            )
        if not self.tasks and waiting.should_park(self, self.waits):
            parked = await waiting.park(self, self.waits)
            self._recorder.position = parked.position
            if parked.parked:
                return True
            self.take(await self.services.journal.look(self.request.run_id))
        if not self.tasks and self._retry_ready():
            return False
        timeout = waiting.seconds_to_next(self, self.waits)
        if timeout is None:
            await self._signal.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._signal.wait()
        self._signal.clear()
        return False

    def _guard(self) -> None:
        """A cancel or a passed deadline ends the run at the next moment nothing is half done."""
        if self.failure is not None:
            raise self.failure
        if self.news.cancel is not None:
            raise RunCanceled(f"canceled by {self.news.cancel}", run_id=self.request.run_id)
        elif (deadline := waiting.deadline(self)) is not None and self.services.now_ns() >= deadline:
            raise DeadlineExceeded("the run's wall time has passed", run_id=self.request.run_id)

    # -- the function's side (Executor of the context) -----------------------------------------------------

    async def issue(self, effect: EffectKind, name: str, arguments: Json, options: dict[str, Any]) -> Outcome:
        """Called by the context on the function's loop: ask for an effect and wait for its outcome."""
        if self._closed:
            raise asyncio.CancelledError
        place = f"{SCOPE.get()}/{name}"
        ordinal = self._ordinals[place] = self._ordinals.get(place, -1) + 1
        command = Command(
            key=f"{self.history.checkpoint}{place}#{ordinal}",
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
        if self._records > self.history.records or self._live:
            self._recorder.note(Record(at=self.services.now_ns(), topic=topic, facts=facts, content=content))

    async def continue_as_new(self, name: str, state: Json) -> Any:
        """Called by the context: end this call of the function, begin the next with `state`."""
        self._next = (name, state)
        self._signal.set()
        return await self._loop.create_future()

    def definition(self, target: Definition | str) -> Definition:
        """Called by the context: what a child would run."""
        return self.services.registry.get(target if isinstance(target, str) else target.name)

    def now_ns(self) -> int:
        """Called by the context: the time of the newest delivery, Unix ns."""
        return int(self._loop.now * 1e9)

    # -- what effects use ----------------------------------------------------------------------------------

    def note(self, *entries: AnyEntry) -> None:
        """Buffer entries; they ride with the next append."""
        self._recorder.note(*entries)
        for entry in entries:
            self.history.add(entry)

    def write(self, *entries: AnyEntry, **extra: Any) -> Awaitable[Appended]:
        """Append durably, in order, with everything buffered before; await it before anything depends on it."""
        for entry in entries:
            self.history.add(entry)
        return self._recorder.write(entries, self.news.seq, **extra)

    # -- inside ----------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._signal.set()

    def _start(self, state: Json) -> None:
        definition = self.services.registry.get(self.request.target, self.request.target_version)
        admission.check_version(definition, self.request)
        if not self.history.admitted and not self._live:
            admission.admit(self, definition)
        self._ordinals.clear()
        self._records = 0
        self._activation = 0
        self._loop = body_loop(self.history.started_at / 1e9, self._host_loop)
        self._body = self._loop.start_body(start(definition, self, self.leased.input, replay.private(state)))

    def _replay(self) -> None:
        """Bring the function to where it was, then begin what it asked for and nobody has finished."""
        self._run_on()
        self._activation = replay.deliver(self.request.run_id, self.history, self.commands, self._run_on)
        self._live = True
        for key, reserved in self.history.unsettled().items():
            self.ledger.hold(key, reserved)
        self._issued = list(self.commands.values())
        for command in self._issued:
            command.interrupted = self.history.interrupted(command.key)

    def _run_on(self, at: int | None = None) -> None:
        """Let the function run until it can do nothing more; a mismatch is raised where it was found."""
        if at is not None:
            self._loop.now = at / 1e9
        self._loop.run_until_quiet()
        if self.failure is not None:
            raise self.failure

    def _match(self, command: Command) -> None:
        mismatch = replay.mismatch(self.request.run_id, self.history, command)
        if mismatch is not None:
            self.failure = mismatch
            self._signal.set()
            raise asyncio.CancelledError

    def _admit(self) -> None:
        """Begin what the function asked for since it last stood still."""
        issued, self._issued = self._issued, []
        for command in issued:
            if command.effect == "gate":
                self.settled.append((command, gates.perform(self, command)))
            else:
                self._perform(command)
        self._recorder.flush_full(self.news.seq)

    def _perform(self, command: Command) -> None:
        self.waits.pop(command.key, None)
        task = self._host_loop.create_task(self._effect(command))
        self.tasks[command.key] = task

    async def _effect(self, command: Command) -> None:
        try:
            known = await replay.recall(self.request.run_id, self.history, command, self.services.journal)
            ended = known or await perform(self, command)
        except asyncio.CancelledError:
            raise
        except StoreUnreachable as error:  # that is nobody's outcome: the run waits in its queue until it answers
            self._failed(error)
            return
        except Exception as error:  # an effect's error is its outcome
            ended = Done(result="error", error=error_info(error))
        finally:
            self.tasks.pop(command.key, None)
            self._signal.set()
        if isinstance(ended, Wait):
            self.waits[command.key] = ended
        else:
            self.settled.append((command, ended))

    def _retry_ready(self) -> bool:
        """Begin again what waits for something that has come. True when there was any."""
        ready = [key for key, wait in self.waits.items() if waiting.is_ready(self, wait)]
        for key in ready:
            self._perform(self.commands[key])
        return bool(ready)

    async def _deliver(self) -> None:
        batch, self.settled = self.settled, []
        self._activation += 1
        at = self.services.now_ns()
        outcomes = [outcome_of(command, done, self._activation, at) for command, done in batch]
        for command, done in batch:
            self.ledger.settle(command.key, done.usage)
        self._recorder.note(*outcomes)
        written = any(done.hard or replay.is_large(done) for _, done in batch)
        if written:
            await self.write()
        self._loop.now = at / 1e9
        for outcome, (command, done) in zip(outcomes, batch, strict=True):
            self.commands.pop(command.key)
            self.history.forget(command.key)
            replay.hand_over(command, replay.seen(outcome, done, written))
        self._loop.run_until_quiet()

    def _continue(self) -> None:
        """Continue as new. The next call starts from what a resumed one would start from."""
        name, state = self._next or ("", None)
        self._next = None
        self._end_call()
        number = self.history.checkpoint + 1
        at = self.services.now_ns()
        self.note(
            Checkpoint(
                at=at,
                content=to_json_value(state),
                name=name,
                number=number,
                spent=self.ledger.spent,
                events=self.history.events,
                amendment=self.history.amendment,
                sessions=self.history.remote.told(),
            )
        )
        self._start(state if isinstance(state, AgentState) else self.history.state)
        self._loop.run_until_quiet()

    def _end_call(self) -> None:
        if self.commands:
            pending = ", ".join(self.commands)
            raise ReplayMismatch(f"run {self.request.run_id}: checkpoint while {pending} is in flight; await it before")
        self._closed = True
        self._loop.abandon()
        self._closed = False

    def _close(self) -> None:
        self._closed = True
        for task in list(self.tasks.values()):
            task.cancel()
        self._loop.abandon()


def _leased(leased: LeasedRun, host: HostInfo, at: int) -> Leased:
    return Leased(at=at, epoch=leased.epoch, host_id=host.host_id, actor_id=host.actor_id, pid=host.pid, node=host.node)
