"""The event stream of a run, as people and programs follow it: journal entries and streamed text in words.

Derived from the journal; nothing is kept. Knows no terminal.
"""

from __future__ import annotations

from retinue.runs.contracts import Frozen, Json
from retinue.runs.journal import Accepted, AnyEntry, Finished, Frame, Leased, Outcome, Parked, Record, Retried

_LINE = 160
"""Characters of a program's line that are shown."""


class RunEvent(Frozen):
    """Something that happened in a run. `position` orders the events of a run; `kind` is the entry's kind or
    `delta` for a piece of streamed text; `text` is one line for people."""

    at: int
    run_id: str
    position: int
    kind: str
    name: str = ""
    text: str = ""
    facts: dict[str, Json] = {}


def events_of(frame: Frame) -> list[RunEvent]:
    """The events in a frame, in order."""
    return [_event(frame, position, entry) for position, entry in enumerate(frame.entries, start=frame.position)]


def _event(frame: Frame, position: int, entry: AnyEntry) -> RunEvent:
    name, text = _words(entry)
    facts = entry.model_dump(mode="json", exclude={"at", "kind", "request"}, exclude_defaults=True)
    return RunEvent(
        at=entry.at, run_id=frame.run_id, position=position, kind=entry.kind, name=name, text=text, facts=facts
    )


def _words(entry: AnyEntry) -> tuple[str, str]:
    """What an entry is about, and what it says in a line."""
    match entry.kind:
        case "intent":
            return entry.name, f"{entry.effect} {entry.name} begins"
        case "outcome":
            said = "" if entry.result == "ok" else f" {entry.result}"
            return entry.name, f"{entry.effect} {entry.name} ended{said}{_why(entry)}"
        case "attempt":
            return entry.key, f"try {entry.number} of {entry.key} failed: {entry.error.message}"
        case "record":
            return entry.topic, _recorded(entry)
        case "checkpoint":
            return entry.name, f"checkpoint {entry.name} {entry.number}"
    return _stage(entry)


def _recorded(entry: Record) -> str:
    facts = entry.facts
    if entry.topic == "progress":
        message = entry.content.get("message", "") if isinstance(entry.content, dict) else ""
        of = "" if facts.get("total") is None else f" of {facts['total']:g}"
        said = "".join(sign for sign in str(message) if sign.isprintable())
        return f"{facts.get('name')}: {facts.get('done', 0):g}{of} {said}".rstrip()
    if entry.topic == "session":
        before = "" if facts.get("before") is None else f"{facts['before']} → "
        return f"session with {facts.get('server')}: {before}{facts.get('status')} ({facts.get('cause')})"
    if entry.topic == "sandbox":
        return f"sandbox {facts.get('name')}: {facts.get('event')} ({facts.get('cause')})"
    if entry.topic == "output":
        return f"{facts.get('key')} writes: {_newest(entry.content)}"
    return f"{entry.topic} {_brief(facts)}"


def _newest(content: Json) -> str:
    """The newest line of what a program has written."""
    texts = content.values() if isinstance(content, dict) else ()
    lines = [line for text in texts for line in str(text).splitlines() if line.strip()]
    return "".join(sign for sign in lines[-1][:_LINE] if sign.isprintable()) if lines else ""


def _stage(entry: Accepted | Leased | Parked | Finished | Retried) -> tuple[str, str]:
    match entry.kind:
        case "accepted":
            return entry.request.target, f"accepted {entry.request.kind} {entry.request.target}"
        case "leased":
            return entry.node, f"running on {entry.node} pid {entry.pid}" + (" again" if entry.epoch > 1 else "")
        case "parked":
            return entry.reason.value, f"{entry.status.value}: {entry.reason.value} ({', '.join(entry.waits)})"
        case "finished":
            return entry.reason.value, f"{entry.status.value} ({entry.reason.value}){_why(entry)}"
        case "retried":
            return entry.by, f"retried by {entry.by}" + (f", {entry.again} anew" if entry.again else "")


def _why(entry: Outcome | Finished) -> str:
    return f": {entry.error.message}" if entry.error else ""


def _brief(facts: dict[str, Json]) -> str:
    shown = {name: value for name, value in facts.items() if isinstance(value, str | int | float | bool)}
    return " ".join(f"{name}={value}" for name, value in shown.items())
