"""The effects of a run that are under way: begun, waiting, or ended and not yet delivered.

Each is performed in a task of its own and again from its start after a wait. Knows neither the function nor when
the run parks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from retinue.runs import replay, waiting
from retinue.runs.effects import gates, perform
from retinue.runs.effects.run import Run
from retinue.runs.errors import StoreUnreachable
from retinue.runs.hostloop import Signal
from retinue.runs.steps import Command, Done, Wait, error_info


class InFlight:
    """Performs the commands of one run on the host's loop; `signal` is set whenever one has ended or waits.

    `failed` is told when the store does not answer: that is no outcome of an effect.
    """

    def __init__(
        self, run: Run, loop: asyncio.AbstractEventLoop, signal: Signal, failed: Callable[[BaseException], None]
    ) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.waits: waiting.Waits = {}
        self.settled: list[tuple[Command, Done]] = []
        self._waiting: dict[str, Command] = {}
        self._run = run
        self._loop = loop
        self._signal = signal
        self._failed = failed

    def begin(self, command: Command) -> None:
        """Perform a command; the gate is asked at once."""
        if command.effect == "gate":
            self.settled.append((command, gates.perform(self._run, command)))
        else:
            self.tasks[command.key] = self._loop.create_task(self._perform(command))

    def resume(self) -> bool:
        """Begin again what waits for something that has come. True when there was any."""
        ready = [key for key, wait in self.waits.items() if waiting.is_ready(self._run, wait)]
        for key in ready:
            del self.waits[key]
            self.begin(self._waiting.pop(key))
        return bool(ready)

    def take_settled(self) -> list[tuple[Command, Done]]:
        """What has ended since it was last taken, in that order."""
        settled, self.settled = self.settled, []
        return settled

    def cancel(self) -> None:
        """Ask everything that runs to stop."""
        for task in list(self.tasks.values()):
            task.cancel()

    async def _perform(self, command: Command) -> None:
        run = self._run
        try:
            known = await replay.recall(run.request.run_id, run.history, command, run.services.journal)
            ended = known or await perform(run, command)
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
            self._waiting[command.key] = command
        else:
            self.settled.append((command, ended))
