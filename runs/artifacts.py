"""What stands in for a history: the recap of what was done, and the artifact that another agent starts from.

Owns both as frozen data, how they are put together, kept within a size and written out for a model. Built by
the runtime from the state alone, so the same state gives the same artifact. Knows no loop and no store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from retinue.runs.contracts import Frozen, Json
from retinue.runs.obligations import Obligations

FORM: Literal["retinue.artifact/1"] = "retinue.artifact/1"
"""Tells an artifact from other input."""
LINE = 120
"""Characters of a one-line summary."""
QUOTE = 240
"""Characters of a quote."""
_LEAST = 2
_BYTES_PER_TOKEN = 4
_MOST_TALLIES = 24
_DOCUMENT = ("document", "document_id", "doc_id", "source")
_TEXT = ("quote", "text", "passage", "snippet")
_DEPTH = 6


class Deed(Frozen):
    """One thing that was done: the decision in short, the id of what was observed, and how it came out.

    `agent` is set for what another agent did before it handed over.
    """

    turn: int
    name: str
    arguments: str = ""
    observation: str | None = None
    result: str = "ok"
    summary: str = ""
    agent: str = ""

    def render(self) -> str:
        """One line."""
        who = f"{self.agent} " if self.agent else ""
        seen = f" -> {self.observation}" if self.observation else ""
        result = "" if self.result == "ok" else f" ({self.result})"
        return f"- {who}turn {self.turn} {self.name}({self.arguments}){seen}{result}: {self.summary}"


class Tally(Frozen):
    """Deeds too old to be listed, by name and result: how many, and from which turn to which."""

    name: str
    result: str
    count: int
    first: int
    last: int


class Evidence(Frozen):
    """A passage that an observation carried: the id of its document and its words, cut to QUOTE characters."""

    observation: str
    document: str
    quote: str


class Recap(Frozen):
    """What was done, shortened: the newest deeds line by line, the older ones counted, passages seen."""

    first: int
    last: int
    deeds: tuple[Deed, ...] = ()
    earlier: tuple[Tally, ...] = ()
    evidence: tuple[Evidence, ...] = ()


class Evaluation(Frozen):
    """How it went so far: corrections made, the newest reasons, confidence of the newest checked answer (0..1)."""

    corrections: int = 0
    problems: tuple[str, ...] = ()
    confidence: float | None = None


class Origin(Frozen):
    """Who wrote an artifact, and when: agent, its version, run, turn."""

    agent: str
    version: str
    run_id: str
    turn: int


class Artifact(Frozen):
    """What a fresh agent starts from, after a reset of the same run or a handoff from another agent.

    `artifact` is what the model itself put into a handoff, `notes` what it noted for a reset, `input` what the
    run was given when that is more than its goal.
    """

    form: Literal["retinue.artifact/1"] = FORM
    kind: Literal["handoff", "reset"]
    goal: str
    origin: Origin
    input: Json = None
    recap: Recap | None = None
    obligations: Obligations = ()
    next_steps: tuple[str, ...] = ()
    evaluation: Evaluation = Evaluation()
    notes: str = ""
    artifact: Json = None


_Item = TypeVar("_Item", Deed, Evidence)


def read_artifact(input: Json) -> Artifact | None:
    """The artifact that a run was given as its input; None when it is something else."""
    if not isinstance(input, dict) or input.get("form") != FORM:
        return None
    try:
        return Artifact.model_validate(input)
    except ValidationError:
        return None


def merge(first: Recap | None, second: Recap | None, room: int) -> Recap | None:
    """Two recaps as one, within about `room` tokens for deeds and as many for evidence; the newest stay whole."""
    found = [recap for recap in (first, second) if recap is not None]
    if not found:
        return None
    deeds = [deed for recap in found for deed in recap.deeds]
    kept = _newest(deeds, room)
    counted = _count([*(t for recap in found for t in recap.earlier), *map(_tally, deeds[: len(deeds) - len(kept)])])
    passages = dict.fromkeys(item for recap in found for item in recap.evidence)
    return Recap(
        first=min(recap.first for recap in found),
        last=max(recap.last for recap in found),
        deeds=tuple(kept),
        earlier=counted,
        evidence=tuple(_newest(list(passages), room)),
    )


def one_line(value: Json, most: int = LINE) -> str:
    """A value in one line of at most so many characters."""
    text = value if isinstance(value, str) else to_json(value).decode()
    words = " ".join(text[: most * 4].split())
    return words if len(words) <= most and len(text) <= most * 4 else words[: most - 3] + "..."


def find_evidence(observation: str, content: str) -> tuple[Evidence, ...]:
    """The passages in what a tool gave: objects that name a document and hold its words."""
    try:
        value = from_json(content)
    except ValueError:
        return ()
    return tuple(Evidence(observation=observation, document=name, quote=text) for name, text in _passages(value, 0))


def render_recap(recap: Recap) -> str:
    """The recap for a model: counts, deeds, and the passages as JSON."""
    lines = [f"Turns {recap.first} to {recap.last} in short:"]
    lines += [
        f"- {tally.count} x {tally.name} ({tally.result}), the last in turn {tally.last}" for tally in recap.earlier
    ]
    lines += [deed.render() for deed in recap.deeds]
    if recap.evidence:
        shown = ",\n".join(json.dumps(item.model_dump(), ensure_ascii=False) for item in recap.evidence)
        lines.append(f"Passages seen:\n[{shown}]")
    return "\n".join(lines)


def render_artifact(artifact: Artifact) -> str:
    """The artifact for the agent that starts from it. What is owed and what is next is shown apart, as it stands."""
    origin, checked = artifact.origin, artifact.evaluation
    begun = {
        "handoff": f"{origin.agent} handed this work over to you after turn {origin.turn}.",
        "reset": f"You continue your own work after turn {origin.turn}; what was said before is not shown.",
    }
    lines = [begun[artifact.kind]]
    if artifact.notes:
        lines.append(f"Notes: {artifact.notes}")
    if artifact.artifact is not None:
        lines.append(f"Handed over: {json.dumps(artifact.artifact, ensure_ascii=False)}")
    if artifact.input is not None:
        lines.append(f"Input: {json.dumps(artifact.input, ensure_ascii=False)}")
    if checked.problems:
        lines.append(f"Corrected {checked.corrections} times so far, last: {checked.problems[-1]}")
    if artifact.recap is not None:
        lines.append(render_recap(artifact.recap))
    return "\n".join(lines)


def _passages(value: Json, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEPTH:
        return
    if isinstance(value, list):
        for part in value:
            yield from _passages(part, depth + 1)
    elif isinstance(value, dict):
        document = next((value[key] for key in _DOCUMENT if isinstance(value.get(key), str | int)), None)
        text = next((value[key] for key in _TEXT if isinstance(value.get(key), str)), None)
        if document is not None and text:
            yield str(document), text[:QUOTE]
        else:
            for part in value.values():
                yield from _passages(part, depth + 1)


def _newest(items: list[_Item], room: int) -> list[_Item]:
    left, kept = room * _BYTES_PER_TOKEN, 0
    for item in reversed(items):
        left -= len(item.render()) if isinstance(item, Deed) else len(item.model_dump_json())
        if left < 0 and kept >= _LEAST:
            break
        kept += 1
    return items[len(items) - kept :]


def _tally(deed: Deed) -> Tally:
    return Tally(name=deed.name, result=deed.result, count=1, first=deed.turn, last=deed.turn)


def _count(tallies: Iterable[Tally]) -> tuple[Tally, ...]:
    """One tally for each name and result; beyond a bound they share one."""
    found: dict[tuple[str, str], Tally] = {}
    for tally in tallies:
        key = (tally.name, tally.result)
        if key not in found and len(found) >= _MOST_TALLIES:
            key = ("others", "ok")
        known = found.get(key)
        found[key] = tally.model_copy(
            update={
                "name": key[0],
                "result": key[1],
                "count": tally.count + (known.count if known else 0),
                "first": min(tally.first, known.first) if known else tally.first,
                "last": max(tally.last, known.last) if known else tally.last,
            }
        )
    return tuple(found.values())
