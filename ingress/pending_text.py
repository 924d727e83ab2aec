"""The inbox as people read it: root by root, one block for each thing that is waited for. Pure.

Knows no store and no stream.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from itertools import groupby

from retinue.ingress.awaiting import Awaited
from retinue.ingress.pending import Pending, Waiting
from retinue.ingress.render import counted, duration, moment, short
from retinue.runs.contracts import Json

_WIDTH = 98
_MARGIN = 13
_LINES = 6
_GOAL = 48

_SAYS_NOTHING = frozenset({"ask", "approve", "sleep", "until"})
_NAMES = {"unknown": "unknown side effect", "timer": "moment", "child": "children"}


def pending_text(found: Pending, now_ns: int) -> str:
    """All of it, at most 100 columns wide."""
    parts = [_tree(list(waits), now_ns) for _, waits in groupby(found.waits, key=lambda one: one.root_run_id)]
    if found.more:
        parts.append(f"… and {found.more:,} more: --limit shows more of them, a RUN only its tree")
    return "\n\n".join(parts) or "nothing is asked"


def _tree(waits: list[Waiting], now_ns: int) -> str:
    root = waits[0].path[0]
    goal = f"  {_goal(waits[0].goal)}" if waits[0].goal is not None else ""
    count = f"{counted(len(waits), 'thing')} waited for"
    head = f"{root.target} {short(root.run_id)}{goal}  ({count})"
    return "\n".join([head, *(_block(one, now_ns) for one in waits)])


def _goal(goal: Json) -> str:
    text = goal if isinstance(goal, str) else json.dumps(goal, ensure_ascii=False)
    return textwrap.shorten(f"“{text}”", _GOAL, placeholder="…”")


def _block(one: Waiting, now_ns: int) -> str:
    who, age = (
        f"{one.target} {short(one.run_id)} (depth {one.depth}{', held' if one.held else ''})",
        duration((now_ns - one.since) / 1e9),
    )
    asked = one.request_id is not None
    lines = [f"  {title(one)}, " + (f"asked by {who} {age} ago" if asked else f"awaited by {who} for {age}")]
    for name, say in LINES:
        text = say(one)
        if text:
            lines += _field(name, text)
    return "\n".join(lines)


def title(one: Waiting | Awaited) -> str:
    """What kind of thing it is, and which."""
    kind = _NAMES.get(one.kind, one.kind)
    return kind if one.name in _SAYS_NOTHING else f"{kind} {one.name}"


def _field(name: str, text: str) -> Iterator[str]:
    """A field, wrapped; a long one is cut."""
    wrapped = [
        part for line in text.splitlines() for part in textwrap.wrap(line, _WIDTH - _MARGIN, break_on_hyphens=False)
    ]
    if len(wrapped) > _LINES:
        wrapped = [*wrapped[: _LINES - 1], f"… ({len(text):,} characters)"]
    for place, part in enumerate(wrapped):
        yield f"    {name if place == 0 else '':<{_MARGIN - 4}}{part}"


def _in(one: Waiting) -> str:
    return " › ".join(f"{place.target} {short(place.run_id)}" for place in one.path) if one.depth else ""


def _why(one: Waiting) -> str:
    return one.why


def _gate(one: Waiting) -> str:
    said = (one.reason, *(f"rule {rule}" for rule in one.rules))
    return ", ".join(part for part in said if part and part not in one.why)


def _asked_of(one: Waiting) -> str:
    request = one.request
    if request is None or request.assignee is None:
        return ""
    late = request.escalated_at
    return request.assignee if late is None else f"{request.assignee}, since {moment(late)}: nobody had answered"


def _due(one: Waiting) -> str:
    return moment(one.due)


def _holds(one: Waiting) -> str:
    parts = [f"{counted(one.holds_up, 'run')} above it"] if one.holds_up else []
    parts += [f"input {one.input_id}"] if one.input_id else []
    parts += [f"job {short(one.job_id)}"] if one.job_id else []
    return ", ".join(parts)


def _do(one: Waiting) -> str:
    return " or ".join(f"`{command}`" for command in one.commands)


LINES: tuple[tuple[str, Callable[[Waiting], str]], ...] = (
    ("in", _in),
    ("why", _why),
    ("gate", _gate),
    ("asked of", _asked_of),
    ("due", _due),
    ("holds up", _holds),
    ("do", _do),
)
"""The fields of a block, in order; one that says nothing is left out."""
