"""What a run of chaos tells in the end: a line per fault, figures, the verdict. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from tests.chaos.checker import RULES, Finding
from tests.chaos.history import History
from tests.chaos.recovery import RUNS, Recovery
from tests.chaos.world import LEASE

from retinue.runs.journal import Leased, Outcome

_SHOWN = 20


class Round(NamedTuple):
    """Faults that came together: when (s since the begin), which, what they did, and seconds until all was well."""

    at: float
    names: tuple[str, ...]
    did: tuple[str, ...]
    seconds: float | None

    def __str__(self) -> str:
        what = "; ".join(f"{name}: {did}" for name, did in zip(self.names, self.did, strict=True))
        end = "NEVER WELL AGAIN" if self.seconds is None else f"well again after {self.seconds:.1f} s"
        return f"{self.at:7.1f} s  {what}; {end}"


class Told(NamedTuple):
    """What is told beside the history."""

    rounds: Sequence[Round]
    findings: Sequence[Finding]
    recovery: Recovery | None
    starts: int
    refused: int


def tell(history: History, told: Told) -> str:
    """The summary as text."""
    return "\n".join([*_faults(told), *_figures(history, told), *_recovery(told), *_verdict(told)])


def _faults(told: Told) -> list[str]:
    times: dict[str, list[float]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for one in told.rounds:
        for name, did in zip(one.names, one.did, strict=True):
            counts["skipped: " + name if did.startswith("skipped") else name] += 1
            if one.seconds is not None:
                times[name].append(one.seconds)
    lines = ["", f"{sum(counts.values())} faults in {len(told.rounds)} rounds", f"{'fault':<20} n  well again after s"]
    for name, count in sorted(counts.items()):
        found = times[name]
        lines.append(f"{name:<20} {count:<3}" + (f"median {median(found):.1f}, most {max(found):.1f}" if found else ""))
    return lines


def _figures(history: History, told: Told) -> list[str]:
    runs = history.runs.values()
    entries = [entry for run in runs for written in run.written for entry in written.entries]
    steps = Counter(f"{entry.effect} {entry.result}" for entry in entries if isinstance(entry, Outcome))
    leases = sum(isinstance(entry, Leased) for entry in entries)
    effects = Counter(effect.contract for effect in history.effects)
    again = len(history.effects) - len({(effect.contract, effect.key) for effect in history.effects})
    rows = sum(len(wave.lines) for wave in history.waves)
    return [
        "",
        f"runs       {len(runs)}: {_counted(Counter(run.status for run in runs))}",
        f"           {len(history.accepted)} acknowledged, {len(history.canceled)} cancels, "
        f"{told.refused} calls refused by a full or busy store or by an end in the meantime",
        f"steps      {sum(steps.values())}: {_counted(steps)}",
        f"leases     {leases}, entries {len(entries)}",
        f"effects    {_counted(effects)}; {again} repeated as their contract allows",
        f"batches    {len(history.waves)} with {rows} rows, {told.starts} starts of the driver",
        f"groups     {len(history.groups)}",
        f"tables     {len(history.tables)} compared, {sum(kept[0] for kept, _ in history.tables.values())} rows",
    ]


def _recovery(told: Told) -> list[str]:
    if told.recovery is None:
        return []
    owned, called = told.recovery.owned, told.recovery.called
    return [
        f"recovery   an actor with {RUNS} runs was killed: all owned again after {owned:.1f} s, their calls made again "
        f"after {called:.1f} s (two leases are {2 * LEASE:.0f} s)"
    ]


def _verdict(told: Told) -> list[str]:
    if not told.findings:
        return ["", f"verdict: nothing found by {len(RULES)} rules"]
    kinds = _counted(Counter(finding.rule for finding in told.findings))
    lines = ["", *map(str, told.findings[:_SHOWN])]
    more = len(told.findings) - _SHOWN
    return [*lines, *([f"... and {more} more"] if more > 0 else []), "", f"verdict: FOUND {kinds}"]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
