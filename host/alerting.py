"""The duty of alerts: looks every few seconds, raises and clears, and tells whoever is configured.

Done by one process of a data folder at a time, whoever has the turn. An alert is committed before anybody is told,
so that a crash in between repeats a message and loses none. Nothing here is waited for by a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from retinue.host import clock
from retinue.host.alert_rules import TRACES, Lag, causes, current, gone
from retinue.host.rule_watch import RuleCheck
from retinue.host.settings import Settings
from retinue.host.telling import Body, NotTold, Tell, channels_of
from retinue.runs.alert_text import said
from retinue.runs.alerts import JOURNAL, RULES, Alert, Cause, Changes, Horizon
from retinue.runs.contracts import Json
from retinue.runs.errors import StoreError
from retinue.store.store import Store

TRIES = 8
"""How often somebody is tried to be told of one alert."""

_LOG = logging.getLogger("retinue.host")
_SECOND = 1_000_000_000
_TURN = 30.0
_HELD = 30
"""Seconds of an open transaction that are told of: what Retinue writes takes less, and is cut off before."""
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 600.0
_BATCH = 20
_TELL = 1.0
_FAREWELL = 2.0
_REMEMBERED = 10_000
_MOST = 1_000
"""Characters of what is wrong with rules."""

Projected = Callable[[], int]
"""The number of the newest frame that the trace tables of this process have."""


class AlertDesk:
    """One process's part in the duty. `projected` is None where no trace tables are kept."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        projected: Projected | None = None,
        channels: Mapping[str, Tell] | None = None,
        now_ns: Callable[[], int] = clock.now_ns,
    ) -> None:
        self._settings = settings
        self._alerts = store.alerts
        self._channels = channels_of(settings) if channels is None else channels
        self._projected = projected
        self._behind, self._held = _Behind(), _Behind()
        self._rules = RuleCheck(settings)
        self._now_ns = now_ns
        self._id = clock.new_run_id()
        self._turn = False
        self._unrecorded: dict[int, tuple[tuple[str, ...], int, int | None]] = {}

    @property
    def every(self) -> float:
        """Seconds between two rounds."""
        return self._settings.alerts.every

    async def round(self) -> bool:
        """Raise and clear, if it is this process's turn; True when there is more to look at."""
        now = self._now_ns()
        until = now + int(max(_TURN, 3 * self.every) * _SECOND)
        self._turn = await self._alerts.take_turn(self._id, now, until)
        if not self._turn:
            return False
        before = now - int(self._settings.alerts.waits_older_than * _SECOND)
        look = current(await self._alerts.look(before), now)
        lags = self._lags(now, await self._alerts.horizon())
        found = [*causes(look, before, lags), *await self._rules_refused(now)]
        over = gone(look, found, lags)
        standing = {(alert.kind, alert.subject) for alert in look.standing if alert.id not in over and alert.lasting}
        fresh = [cause for cause in found if (cause.kind, cause.subject) not in standing]
        if over or fresh or look.failures or look.refused:
            changes = Changes(now, look.cursor, tuple(over), tuple(fresh), tuple(self._channels))
            await self._alerts.change(changes)
        for cause in fresh:
            if cause.kind == "traces_lag":
                _LOG.warning("%s", said(cause.kind, cause.subject, cause.facts))
        return look.more

    async def _rules_refused(self, now: int) -> list[Cause]:
        """Rules that were changed and that no host takes."""
        problem = await asyncio.to_thread(self._rules.problem)
        return [] if problem is None else [Cause("policy", RULES, {"since": now, "problem": problem[:_MOST]})]

    def _lags(self, now: int, horizon: Horizon) -> list[Lag]:
        """Of the readers of the journal, which an open transaction may hold back, and of the tables among them."""
        who: dict[str, Json] = {"pid": horizon.pid, "holder": horizon.holder}
        held = self._held.at(now, horizon.readable, horizon.newest)
        lags = [Lag(JOURNAL, horizon.readable, horizon.newest, *held, _HELD * _SECOND, who)]
        if self._projected is not None:
            projected, most = self._projected(), int(self._settings.alerts.traces_lag * _SECOND)
            behind = self._behind.at(now, projected, horizon.readable)
            lags.append(Lag(TRACES, projected, horizon.readable, *behind, most))
        return lags

    async def tell(self) -> int:
        """Tell of everything that is due, one after the other; how many tries that took."""
        tries = 0
        while self._turn and self._channels and (due := await self._alerts.due(self._now_ns(), _BATCH)):
            for alert in due:
                await self._try(alert)
                tries += 1
        return tries

    async def leave(self) -> None:
        """Let another process have the turn."""
        self._turn = False
        await self._alerts.give_turn(self._id)

    async def _try(self, alert: Alert) -> None:
        """Tell, and record what came of it; where that cannot be written, it is not told again before it is."""
        done = self._unrecorded.get(alert.id) or await self._tell(alert)
        self._unrecorded[alert.id] = done
        await self._alerts.tried(alert, *done)
        del self._unrecorded[alert.id]

    async def _tell(self, alert: Alert) -> tuple[tuple[str, ...], int, int | None]:
        """Who has still to be told, the moment, and when to try again."""
        body = body_of(alert, self._alerts.incarnation)
        left = []
        for name in alert.to:
            try:
                if name in self._channels:
                    await self._channels[name](body)
            except Exception as error:  # one alert that cannot be told must not hold up the others
                left.append(name)
                why = str(error) if isinstance(error, NotTold) else type(error).__name__
                _LOG.warning("alert %s (%s) was not told, try %d: %s", alert.id, alert.kind, alert.tries + 1, why)
        now, due_at = self._now_ns(), None
        if left and alert.tries + 1 < TRIES:
            due_at = now + int(min(_FIRST_PAUSE * 2**alert.tries, _LONGEST_PAUSE) * _SECOND)
        elif left:
            _LOG.error("alert %s is given up after %d tries: %s", alert.id, TRIES, alert.message)
        return tuple(left), now, due_at


def body_of(alert: Alert, incarnation: str) -> Body:
    """What a receiver is given. The same alert has the same `id` however often it is told."""
    return {
        "id": f"{incarnation}-{alert.id}",
        "alert": alert.id,
        "kind": alert.kind,
        "subject": alert.subject,
        "text": alert.message,
        "facts": alert.facts,
        "raised_at": alert.raised_at,
        "cleared_at": alert.cleared_at,
    }


@asynccontextmanager
async def alerting(desk: AlertDesk) -> AsyncIterator[None]:
    """Do the duty while the block lasts; at its end a last round, and a moment to tell what it raised."""
    rounds = asyncio.create_task(_repeat(desk.round, desk.every))
    telling = asyncio.create_task(_repeat(desk.tell, min(desk.every, _TELL)))
    try:
        yield
    finally:
        rounds.cancel()
        telling.cancel()
        await asyncio.gather(rounds, telling, return_exceptions=True)
        await _farewell(desk)


async def _farewell(desk: AlertDesk) -> None:
    """What is left undone here is done by the next process that has the turn."""
    try:
        async with asyncio.timeout(_FAREWELL):
            await desk.round()
            await desk.tell()
            await desk.leave()
    except (StoreError, TimeoutError) as error:
        _LOG.warning("alerts are left to the next process: %s", str(error) or "there was no time to tell of them")


async def _repeat(step: Callable[[], Awaitable[int]], every: float) -> None:
    while True:
        try:
            if await step():
                continue
        except StoreError as error:
            _LOG.warning("alerts are late: %s", error)
        except Exception:  # a defect here must harm neither runs nor the next round
            _LOG.exception("alerts were not looked at")
        await asyncio.sleep(every)


class _Behind:
    """For how long something has been waiting for a reader, by what was seen at earlier moments.

    The writers' own times would not do: a fork begins with entries as old as its original's.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    def at(self, now: int, reached: int, newest: int) -> tuple[int, int]:
        """Since when (Unix ns) and for how long (ns) it is behind, when it has reached a frame and another is the
        newest."""
        self._seen.append((now, newest))
        while self._seen and self._seen[0][1] <= reached:
            self._seen.popleft()
        since = self._seen[0][0] if self._seen else now
        return since, now - since
