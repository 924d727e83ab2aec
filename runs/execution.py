"""The execution of one leased run: it brings the function to where it was and carries it on.

The function runs in a body and asks for effects; the execution has them performed, journals what came of them and
delivers it, in recorded order on replay and in order of completion live. When nothing is left but waiting, it
parks the run and is gone. Knows no store but the journal port, no Ray, no provider.

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
from retinue.runs.body import Body
from retinue.runs.budgets import Ledger
from retinue.runs.context import to_json_value
from retinue.runs.contracts import Json
from retinue.runs.definitions import Definition
from retinue.runs.determinism import NotDeterministic
from retinue.runs.effects import sandboxed
from retinue.runs.errors import DeadlineExceeded, RetinueError, RunCanceled, StoreError
from retinue.runs.history import fold
from retinue.runs.hostloop import Signal, host_loop
from retinue.runs.in_flight import InFlight
from retinue.runs.journal import AnyEntry, Checkpoint, Leased, Record
from retinue.runs.live_sandboxes import LiveSandboxes
from retinue.runs.live_sandboxes import Ways as BoxWays
from retinue.runs.live_sessions import Sessions, Ways
from retinue.runs.ownership import Appended, HostInfo, LeasedRun, Yield
from retinue.runs.ports import Services
from retinue.runs.recorder import Recorder
from retinue.runs.steps import outcome_of


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
        self.failure: BaseException | None = None
        self._recorder = Recorder(leased, services.journal, self._failed)
        self._recorder.note(_leased(leased, host, services.now_ns()))
        self.sessions = Sessions(Ways(self.request, services, self.history, self.note, self._recorder.keep))
        self.boxes = LiveSandboxes(
            BoxWays(self.request, leased.epoch, services, self.history.boxes, self.note, self._recorder.keep_sandbox)
        )
        self._host_loop = host_loop()
        self._signal = Signal(self._host_loop)
        self._flight = InFlight(self, self._host_loop, self._signal, self._failed)
        self._body = Body(self, self._host_loop, self._recorder.note)
        self._leaving = False
        self._closed = False

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
            await ending.stop(self, self._flight.tasks, self._flight.settled)
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
            if (self.news.held or self._leaving) and not self._flight.settled and self._running():
                if await self._let_go():
                    return
                continue
            self._admit()
            if self._body.next is not None:
                await self._keep_boxes("a checkpoint")
                self._guard()
                self._continue(*self._body.next)
            elif self._flight.settled:
                await self._deliver()
            elif self._body.ended is not None and not self._flight.tasks:
                await ending.finish(self, self._body.ended)
                return
            elif not self._flight.resume() and await self._rest():
                return

    def _running(self) -> bool:
        """True while the function waits for effects: it has neither ended nor asked to continue as new."""
        return self._body.next is None and self._body.ended is None

    async def _let_go(self) -> bool:
        """Held, or leaving its host: begin nothing more, and give it back when nothing is in flight."""
        if self._flight.tasks:
            await self._signal.wait()
            self._signal.clear()
            return False
        await self._keep_boxes("the run is given back")
        topic = "held" if self.news.held else "drained"
        await self.write(Record(at=self.services.now_ns(), topic=topic, by="runtime"), end=Yield())
        return True

    async def _rest(self) -> bool:
        """Wait in memory while something is in flight or due soon, else park. True when parked."""
        if not self._flight.tasks and not self._flight.waits:
            raise NotDeterministic(
                f"run {self.request.run_id} waits for something that no effect brings, such as a lock or a future of "
                "its own: await what `ctx` gives"
            )
        if not self._flight.tasks and waiting.should_park(self, self._flight.waits):
            await self._keep_boxes("the run waits")
            parked = await waiting.park(self, self._flight.waits)
            self._recorder.position = parked.position
            if parked.parked:
                return True
            self.take(await self.services.journal.look(self.request.run_id))
        if not self._flight.tasks and self._flight.resume():
            return False
        timeout = waiting.seconds_to_next(self, self._flight.waits)
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

    # -- what effects use ----------------------------------------------------------------------------------

    def definition(self, target: Definition | str) -> Definition:
        """A definition by name."""
        return self.services.registry.get(target if isinstance(target, str) else target.name)

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

    def _start(self, state: Json, live: bool = False) -> None:
        """Begin a call of the function: the first one, or `live` the one after a checkpoint."""
        definition = self.services.registry.get(self.request.target, self.request.target_version)
        admission.check_version(definition, self.request)
        if not self.history.admitted and not live:
            admission.admit(self, definition)
        self._body = Body(self, self._host_loop, self._recorder.note, live)
        own = state if isinstance(state, AgentState) else replay.private(state)
        self._body.begin(definition, self.leased.input, own)

    def _replay(self) -> None:
        """Bring the function to where it was; what it asked for and nobody has finished is begun next."""
        self._body.replay()
        for key, reserved in self.history.unsettled().items():
            self.ledger.hold(key, reserved)
        for command in self._body.commands.values():
            command.interrupted = self.history.interrupted(command.key)

    def _admit(self) -> None:
        """Begin what the function asked for since it last stood still."""
        for command in self._body.issued():
            self._flight.begin(command)
        self._recorder.flush_full(self.news.seq)

    async def _deliver(self) -> None:
        """Put on record what has ended and let the function go on with it."""
        batch = self._flight.take_settled()
        self._body.activation += 1
        at = self.services.now_ns()
        outcomes = [outcome_of(command, done, self._body.activation, at) for command, done in batch]
        for command, done in batch:
            self.ledger.settle(command.key, done.usage)
        self._recorder.note(*outcomes)
        self.boxes.leave(*(command.key for command, _ in batch))
        written = any(done.hard or replay.is_large(done) for _, done in batch)
        if written:
            await self.write()
        ended = zip(outcomes, batch, strict=True)
        self._body.deliver([(command, replay.seen(outcome, done, written)) for outcome, (command, done) in ended], at)

    def _continue(self, name: str, state: Json) -> None:
        """Continue as new. The next call starts from what a resumed one would start from."""
        self._body.end()
        at = self.services.now_ns()
        self.note(
            Checkpoint(
                at=at,
                content=to_json_value(state),
                name=name,
                number=self.history.checkpoint + 1,
                spent=self.ledger.spent,
                events=self.history.events,
                amendment=self.history.amendment,
                sessions=self.history.remote.told(),
                sandboxes=self.history.boxes.told(),
            )
        )
        self._start(state if isinstance(state, AgentState) else self.history.state, live=True)
        self._body.run_on()

    async def _keep_boxes(self, cause: str) -> None:
        """Make what the sandboxes hold their heads; a cancel of the run ends that."""
        if not self.boxes.to_keep or self._flight.tasks:
            return
        task = self._host_loop.create_task(self.boxes.keep_all(cause, sandboxed.remaking(self)))
        task.add_done_callback(lambda _: self._signal.set())
        try:
            while not task.done() and self.news.cancel is None and self.failure is None:
                await self._signal.wait()
                self._signal.clear()
        finally:
            self._signal.set()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=self.services.defaults.cancel_grace)
        if task.done() and not task.cancelled():
            task.result()

    def _close(self) -> None:
        self._closed = True
        self._flight.cancel()
        self._body.abandon()


def _leased(leased: LeasedRun, host: HostInfo, at: int) -> Leased:
    return Leased(at=at, epoch=leased.epoch, host_id=host.host_id, actor_id=host.actor_id, pid=host.pid, node=host.node)
