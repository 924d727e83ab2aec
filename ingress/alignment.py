"""Two runs laid side by side: which steps are the same, which changed and in what, which only one of them has. Pure.

Steps are matched by their key; what is left is matched by effect and name in order, model calls by order alone. What a
fork took over has equal keys and outcomes and comes out the same. Knows no store and no terminal.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from retinue.runs.contracts import NOTHING, Frozen, Json, RunRecord, Usage
from retinue.runs.journal import Accepted, AnyEntry, Attempt, Finished, Frame, Intent, Outcome

SHOWN_LINES = 40
"""Lines of one difference of values that are kept."""
SHOWN_WIDTH = 200
"""Characters of such a line that are kept."""
_WORKS = frozenset({"model", "call", "step"})
"""Effects that take time; the others wait for somebody or for a moment."""
_SLOWER = 2.0
_SECOND = 1_000_000


class Step(Frozen):
    """A step as one journal has it. `result` is None while it is open; `micros` is how long it took (µs).

    `digest` is the hash of its arguments, None for a step whose intent is not journaled.
    """

    key: str
    effect: str
    name: str
    position: int
    digest: str | None = None
    result: str | None = None
    error: str | None = None
    usage: Usage = NOTHING
    micros: int | None = None
    tries: int = 0


class Pair(Frozen):
    """A step in both runs, or (one side None) in one only. `changed` names in what they differ.

    `arguments` and `value` are the differences of these, as lines.
    """

    one: Step | None
    other: Step | None
    changed: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    value: tuple[str, ...] = ()


class Side(Frozen):
    """One of the two runs. `error` is its last word when it failed."""

    run_id: str
    target: str
    version: str
    status: str
    reason: str | None
    error: str | None
    seconds: float | None
    usage: Usage


class Comparison(Frozen):
    """Two runs, step by step in the order of the first. Differences of values are lines as `diff -u` has them."""

    one: Side
    other: Side
    pairs: tuple[Pair, ...]
    input: tuple[str, ...]
    output: tuple[str, ...]

    def count(self, what: Callable[[Pair], bool]) -> int:
        """How many pairs are so."""
        return sum(map(what, self.pairs))

    @property
    def facts(self) -> dict[str, Json]:
        """The counts and the deltas (the second run's minus the first's), as JSON."""
        one, other = self.one.usage, self.other.usage
        return {
            "same": self.count(is_same),
            "changed": self.count(is_changed),
            "only_one": self.count(lambda pair: pair.other is None),
            "only_other": self.count(lambda pair: pair.one is None),
            "tokens": other.tokens - one.tokens,
            "micros": other.micros - one.micros,
        }


def is_same(pair: Pair) -> bool:
    """Whether both runs have it and nothing differs."""
    return pair.one is not None and pair.other is not None and not pair.changed


def is_changed(pair: Pair) -> bool:
    """Whether both runs have it and something differs."""
    return bool(pair.changed)


@dataclass(slots=True)
class _Known:
    """A step while it is read, with what was said in it."""

    step: Step
    begun: int | None = None
    arguments: Json = None
    value: Json = None


@dataclass(slots=True)
class Story:
    """What a journal tells of a run, for the comparison; `branches` are the runs of a fan-out, by its key and index."""

    version: str = ""
    input: Json = None
    output: Json = None
    error: str | None = None
    steps: dict[str, _Known] = field(default_factory=dict)
    branches: dict[str, dict[int, str]] = field(default_factory=dict)

    def take(self, position: int, entry: AnyEntry) -> None:
        """One entry, in journal order."""
        match entry:
            case Accepted():
                self.version, self.input = entry.request.target_version, entry.content
            case Intent():
                known = self._known(position, entry)
                known.begun = known.begun or entry.at
                known.arguments = entry.content
                known.step = known.step.model_copy(update={"digest": entry.digest})
            case Outcome():
                self._end(self._known(position, entry), entry)
            case Attempt() if entry.key in self.steps:
                known = self.steps[entry.key]
                known.step = known.step.model_copy(update={"tries": entry.number})
            case Finished():
                self.output = entry.content
                self.error = entry.error.message if entry.error else None

    def _known(self, position: int, entry: Intent | Outcome) -> _Known:
        step = Step(key=entry.key, effect=entry.effect, name=entry.name, position=position)
        return self.steps.setdefault(entry.key, _Known(step))

    def _end(self, known: _Known, entry: Outcome) -> None:
        known.value = entry.content
        if entry.effect == "children" and isinstance(entry.content, list):
            named = [branch for branch in entry.content if isinstance(branch, dict)]
            self.branches[entry.key] = {branch["index"]: branch["run_id"] for branch in named}
            known.value = [_brief(branch) for branch in entry.content]
        micros = entry.facts.get("micros")
        if micros is None and known.begun is not None:
            micros = (entry.at - known.begun) // 1_000
        known.step = known.step.model_copy(
            update={
                "result": entry.result,
                "error": f"{entry.error.code}: {entry.error.message}" if entry.error else None,
                "usage": entry.usage,
                "micros": micros,
            }
        )


def story_of(frames: Iterable[Frame]) -> Story:
    """Read a whole journal; its frames in order."""
    story = Story()
    for frame in frames:
        for position, entry in enumerate(frame.entries, start=frame.position):
            story.take(position, entry)
    return story


def compare(one: tuple[RunRecord, Story], other: tuple[RunRecord, Story]) -> Comparison:
    """Lay two runs side by side."""
    return Comparison(
        one=_side(*one),
        other=_side(*other),
        pairs=tuple(_pairs(list(one[1].steps.values()), list(other[1].steps.values()))),
        input=lines_between(one[1].input, other[1].input),
        output=lines_between(one[1].output, other[1].output),
    )


def lines_between(one: Json, other: Json) -> tuple[str, ...]:
    """A unified difference of two values, cut, `…` for what they share; nothing when they are equal."""
    if one == other:
        return ()
    found = list(difflib.unified_diff(_block(one), _block(other), lineterm="", n=2))[3:]
    found = ["…" if line.startswith("@@") else line for line in found]
    cut = [line if len(line) <= SHOWN_WIDTH else line[: SHOWN_WIDTH - 1] + "…" for line in found[:SHOWN_LINES]]
    rest = len(found) - SHOWN_LINES
    return tuple(cut if rest <= 0 else [*cut, f"… {rest} more lines"])


def _side(record: RunRecord, story: Story) -> Side:
    ended = record.finished_at and record.started_at
    return Side(
        run_id=record.run_id,
        target=record.target,
        version=story.version,
        status=record.status.value,
        reason=record.reason.value if record.reason else None,
        error=story.error,
        seconds=((record.finished_at or 0) - (record.started_at or 0)) / 1e9 if ended else None,
        usage=record.usage,
    )


def _pairs(ones: Sequence[_Known], others: Sequence[_Known]) -> list[Pair]:
    """In the order of the first run; what only the second has stands before what comes next in both."""
    partners = _match(ones, others)
    placed = [
        ((place, 1, 0), _pair(known, None if place not in partners else others[partners[place]]))
        for place, known in enumerate(ones)
    ]
    matched = {theirs: ours for ours, theirs in partners.items()}
    ahead = len(ones)
    for place in reversed(range(len(others))):
        ahead = matched.get(place, ahead)
        if place not in matched:
            placed.append(((ahead, 0, place), Pair(one=None, other=others[place].step)))
    return [pair for _, pair in sorted(placed, key=lambda found: found[0])]


def _match(ones: Sequence[_Known], others: Sequence[_Known]) -> dict[int, int]:
    """Place in the first to place in the second: by key, then by name and order, then model calls by order."""
    partners: dict[int, int] = {}
    for sign in (_by_key, _by_name, _by_turn):
        free: dict[object, list[int]] = {}
        taken = set(partners.values())
        for place, known in enumerate(others):
            if place not in taken:
                free.setdefault(sign(known.step), []).append(place)
        for place, known in enumerate(ones):
            said = sign(known.step)
            if place not in partners and said is not None and free.get(said):
                partners[place] = free[said].pop(0)
    return partners


def _by_key(step: Step) -> object:
    return step.key, step.effect


def _by_name(step: Step) -> object:
    return step.effect, step.name


def _by_turn(step: Step) -> object:
    return step.effect if step.effect == "model" else None


def _pair(one: _Known, other: _Known | None) -> Pair:
    if other is None:
        return Pair(one=one.step, other=None)
    ours, theirs = one.step, other.step
    arguments = ours.digest is not None and theirs.digest is not None and ours.digest != theirs.digest
    differs = {
        "name": ours.name != theirs.name,
        "arguments": arguments,
        "result": ours.result != theirs.result,
        "error": ours.error != theirs.error,
        "value": one.value != other.value,
        "usage": ours.usage != theirs.usage,
        "tries": ours.tries != theirs.tries,
        "duration": ours.effect in _WORKS and _much_slower(ours.micros, theirs.micros),
    }
    return Pair(
        one=ours,
        other=theirs,
        changed=tuple(name for name, changed in differs.items() if changed),
        arguments=lines_between(one.arguments, other.arguments) if arguments else (),
        value=lines_between(one.value, other.value),
    )


def _much_slower(one: int | None, other: int | None) -> bool:
    """No two runs take the same time: a duration differs when it doubled and that was more than a second."""
    if one is None or other is None:
        return False
    return max(one, other) >= _SLOWER * min(one, other) and abs(one - other) >= _SECOND


def _brief(branch: Json) -> Json:
    """What counts of a branch of a fan-out: its run's id and cost differ between any two parents."""
    if not isinstance(branch, dict):
        return branch
    error = branch.get("error")
    return {name: branch.get(name) for name in ("index", "status", "reason", "value")} | (
        {"error": error.get("message")} if error else {}
    )


def _block(value: Json) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    return text.splitlines()
