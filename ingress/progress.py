"""How far a job is, shown as it moves: one live line on a terminal, a plain line now and then elsewhere.

Owns rate and estimate. Is given the time and the counts; knows no job.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from retinue.ingress.render import duration, money
from retinue.runs.control import JobState

EVERY = 5.0
"""Seconds between plain lines."""
_SPAN = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast rows end. `rate` is rows a second over the last half minute, `eta` seconds to go, if known."""

    rate: float
    eta: float | None


class Meter:
    """Measures pace from counts with their times (seconds, any monotonic clock)."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def measure(self, now: float, done: int, rows: int) -> Pace:
        """Note that `done` of `rows` have ended by now."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _SPAN:
            self._seen.popleft()
        then, before = self._seen[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        return Pace(rate, (rows - done) / rate if rate > 0 and rows >= done else None)


def ended(state: JobState) -> int:
    """Rows that are over, one way or the other."""
    return state.ok + state.failed + state.rejected


def line_of(state: JobState, rows: int, pace: Pace) -> str:
    """The one line: done / failed / waiting / cost / rate / ETA."""
    parts = [f"{ended(state):,} of {max(rows, ended(state)):,} done", f"{state.failed + state.rejected:,} failed"]
    parts.append(f"{state.waiting:,} waiting for a person" if state.waiting else "0 waiting")
    parts.append(money(state.cost_micros))
    if pace.rate:
        parts.append(f"{pace.rate:.1f} rows/s")
    if pace.eta is not None:
        parts.append(f"ETA {duration(pace.eta)}")
    return " · ".join(parts)


class Progress:
    """Shows a job on a console; use it as a context. `rows` is 0 when nobody knows, `quiet` shows nothing."""

    def __init__(self, console: Console, rows: int, quiet: bool = False) -> None:
        self._console = console
        self._rows = rows
        self._quiet = quiet
        self._meter = Meter()
        self._shown_at: float | None = None
        self._live = Live(console=console, refresh_per_second=8, transient=True) if self._moves else None

    @property
    def _moves(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, state: JobState, now: float) -> None:
        """Show the counts as they are now (seconds)."""
        rows = self._rows or state.total + state.rejected
        line = line_of(state, rows, self._meter.measure(now, ended(state), self._rows))
        if self._live is not None:
            self._live.update(Text(_bar(ended(state), rows) + " " + line))
        elif not self._quiet and (self._shown_at is None or now - self._shown_at >= EVERY):
            self._shown_at = now
            self._console.print(Text(line), soft_wrap=True)


def _bar(done: int, rows: int, width: int = 24) -> str:
    full = width if rows <= 0 else min(width, width * done // rows)
    return "█" * full + "░" * (width - full)
