"""Forks: a new run that shares another's past up to a step, and takes that step anew or as it was given. Pure.

The past is copied, so neither run can touch the other; nothing of it is paid or done again. The fork has its own
idempotency keys: what the original has written since is listed, and the fork asks before it writes the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from retinue.runs.contracts import NOTHING, Json
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.history import History
from retinue.runs.journal import AnyEntry, Checkpoint, Intent, Outcome, Record

START = "start"
"""The place before the first step: only the input is shared."""

_CHECKPOINT = re.compile(r"checkpoint:(\d+)")
_FIXED = frozenset({"children", "gate"})


@dataclass(frozen=True, slots=True)
class Fork:
    """What a fork begins with: its input, the past it shares, the writes it would repeat (`name:digest`)."""

    at: str
    input: Json
    past: tuple[AnyEntry, ...]
    repeats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A value that replaces the outcome of the step, the state of the checkpoint or the input; by whom."""

    value: Json
    by: str


@dataclass(frozen=True, slots=True)
class Original:
    """The run to fork: its entries from the first on, its input, and when it first started (Unix ns).

    Outcomes of fan-outs hold their branches.
    """

    entries: Sequence[AnyEntry]
    input: Json
    started_at: int


def fork(original: Original, at: str, given: Given | None = None) -> Fork:
    """Share the past before `at`: the key of a step or a unique part of it, `checkpoint:NUMBER`, or `start`.

    Raises UnknownName with close matches, InvalidInput when the step's outcome cannot be given.
    """
    if at == START:
        return Fork(START, given.value if given else original.input, (), _writes(original, set()))
    segments = _segments(original)
    match = _CHECKPOINT.fullmatch(at)
    if match is not None:
        return _from_checkpoint(original, segments, int(match[1]), given)
    return _from_step(original, segments, _find(segments, at), given)


@dataclass(slots=True)
class _Segment:
    """What stands between two checkpoints. `begins` is the one before; None at the beginning."""

    begins: Checkpoint | None
    history: History


def _segments(original: Original) -> list[_Segment]:
    segments = [_Segment(None, History(started_at=original.started_at))]
    for entry in original.entries:
        if isinstance(entry, Checkpoint):
            segments.append(_Segment(entry, History()))
        segments[-1].history.add(entry)
    return segments


def _find(segments: list[_Segment], at: str) -> str:
    keys = {key for each in segments for key in (*each.history.intents, *each.history.outcomes) if "!" not in key}
    if at in keys:
        return at
    found = sorted(key for key in keys if at in key)
    if len(found) == 1:
        return found[0]
    near = found or get_close_matches(at, sorted(keys), n=5, cutoff=0.3) or sorted(keys)
    problem = f"{at!r} is part of {len(found)} steps" if found else f"there is no step {at!r}"
    raise UnknownName(f"{problem}: name one of {', '.join(near[:8])}; or {START}, or checkpoint:NUMBER")


def _from_checkpoint(original: Original, segments: list[_Segment], number: int, given: Given | None) -> Fork:
    for place, segment in enumerate(segments):
        begins = segment.begins
        if begins is not None and begins.number == number:
            changes = {"content": given.value} if given else {}
            past = (_free(begins, **changes), _mark(f"checkpoint:{number}", begins.at, given))
            return Fork(f"checkpoint:{number}", original.input, past, _writes(original, _before(segments, place)))
    numbers = [segment.begins.number for segment in segments if segment.begins is not None]
    there = f"there are {numbers[0]} to {numbers[-1]}" if numbers else "it has none"
    raise UnknownName(f"there is no checkpoint {number}: {there}; `retinue inspect RUN` shows them")


def _from_step(original: Original, segments: list[_Segment], key: str, given: Given | None) -> Fork:
    number = next(n for n, each in enumerate(segments) if key in {**each.history.intents, **each.history.outcomes})
    segment, history = segments[number], segments[number].history
    kept = history.before(key)
    past: list[AnyEntry] = [] if segment.begins is None else [_free(segment.begins)]
    past.append(_mark(key, history.started_at, given))
    for delivery in history.deliveries[:kept]:
        past += [intent for outcome in delivery if (intent := history.intents.get(outcome.key)) is not None]
        past += [_free(outcome) for outcome in delivery]
    if given is not None:
        past += _told(history, key, kept + 1, given)
    held = _before(segments, number) | history.delivered(kept)
    return Fork(key, original.input, tuple(past), _writes(original, held))


def _told(history: History, key: str, activation: int, given: Given) -> list[AnyEntry]:
    """The step with the outcome it was given."""
    intent, outcome = history.intents.get(key), history.outcomes.get(key)
    effect = outcome.effect if outcome is not None else intent.effect if intent is not None else "gate"
    if intent is None or effect in _FIXED:
        raise InvalidInput(f"the outcome of step {key} cannot be given: it is a {effect}; fork at a step after it")
    if effect == "model" and not (isinstance(given.value, dict) and {"text", "tool_calls"} <= set(given.value)):
        raise InvalidInput(f'step {key} is a model call: give {{"text": ..., "tool_calls": [...]}} as its outcome')
    facts = (outcome.facts if outcome is not None else {}) | {"given_by": given.by}
    told = Outcome(
        at=intent.at, content=given.value, key=key, effect=effect, name=intent.name, activation=activation, facts=facts
    )
    return [intent, told]


def _free(entry: Checkpoint | Outcome, **changes: Json) -> AnyEntry:
    """A copy that spends nothing: the original has paid."""
    if isinstance(entry, Checkpoint):
        return entry.model_copy(update={"spent": NOTHING, "amendment": None, "sessions": (), **changes})
    facts = {name: value for name, value in entry.facts.items() if name != "stored"}
    return entry.model_copy(update={"usage": NOTHING, "facts": facts})


def _mark(at: str, started_at: int, given: Given | None) -> Record:
    facts: dict[str, Json] = {"at": at, "started_at": started_at, "given_by": given.by if given else None}
    return Record(at=started_at, topic="forked", by="runtime", facts=facts)


def _before(segments: list[_Segment], number: int) -> set[str]:
    """Keys of the steps of the segments before that number."""
    return {key for each in segments[:number] for key in each.history.outcomes}


def _writes(original: Original, held: set[str]) -> tuple[str, ...]:
    """The writes of the original that are not in the shared past."""
    intents = (entry for entry in original.entries if isinstance(entry, Intent))
    return tuple(
        sorted({write_name(each.name, each.digest) for each in intents if each.writes and each.key not in held})
    )


def write_name(name: str, digest: str) -> str:
    """A write by its capability and the digest of its arguments."""
    return f"{name}:{digest}"
