"""How pins and what differs from them read on a terminal. Pure; what servers say is made visible, all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from retinue.ingress.pinning import Comparison
from retinue.ingress.render import counted, cut
from retinue.ingress.terminal import as_block
from retinue.runs.contracts import Json
from retinue.sessions.pins import Change, PinnedServer, PinnedTool

_LINE = 100
_LINES = 40
_HINTS = {
    "readOnlyHint": ("only reads", "changes something"),
    "destructiveHint": ("may destroy", "only adds"),
    "idempotentHint": ("a repeat does no harm", "a repeat does more"),
    "openWorldHint": ("reaches outside", "stays inside"),
}


def visible(text: str) -> str:
    """Text in which every character shows: what does not is written as its number."""
    return "".join(each if each.isprintable() or each == "\n" else f"\\u{{{ord(each):x}}}" for each in text)


def comparison_text(found: Comparison) -> str:
    """What is not as it was approved, a block for each tool."""
    if found.problem:
        return f"{found.server}: {visible(found.problem)}"
    if found.same and found.known is not None:
        return f"{found.server}: {counted(len(found.known.tools), 'tool')}, all as pinned by {_by(found.known)}"
    return "\n".join(_lines(found))


def _lines(found: Comparison) -> Iterator[str]:
    now, known = found.pinned, found.known
    assert now is not None
    was = f"pinned by {_by(known)}" if known is not None else "nothing of it is pinned"
    yield f"{found.server}: protocol {visible(now.protocol)}, {counted(len(now.tools), 'tool')}; {was}"
    for change in found.changes:
        yield from _change(change, now)
    for name, reason in now.left_out.items():
        yield f"  ! {visible(name)}: cannot be pinned: {reason}"
    if known is not None and known.client != now.client:
        yield f"  ~ what Retinue says that it can: {', '.join(known.client)} -> {', '.join(now.client)}"


def _change(change: Change, now: PinnedServer) -> Iterator[str]:
    name = visible(change.tool)
    if change.kind == "removed":
        yield f"  - {name}"
    elif change.kind == "renamed":
        yield f"  > {name}, until now {visible(change.before or '')}"
    elif change.kind == "added":
        yield f"  + {name}: {hints(now.tools[change.tool])}"
        yield from _block(now.tools[change.tool].description)
    else:
        yield f"  ~ {name}"
        for path, before, after in change.fields:
            yield f"      {visible(path)}"
            yield from _both(before, after)


def hints(tool: PinnedTool) -> str:
    """What a server says of a tool's manners: a hint, no contract."""
    said = [words[0 if tool.annotations[name] else 1] for name, words in _HINTS.items() if name in tool.annotations]
    return f"says: {', '.join(said)}" if said else "says nothing of what it does"


def _both(before: Json, after: Json) -> Iterator[str]:
    old, new = (_text(side).splitlines() for side in (before, after))
    lines = [line for line in difflib.ndiff(old, new) if line[:2] in ("- ", "+ ")]
    for line in lines[:_LINES]:
        yield f"      {cut(line, _LINE * 4)}"
    if len(lines) > _LINES:
        yield f"        … {len(lines) - _LINES} more lines; --json has all"


def _block(text: str) -> Iterator[str]:
    lines = visible(text).strip().splitlines()
    for line in lines[:_LINES]:
        yield f"      {cut(line, _LINE * 4)}"
    if len(lines) > _LINES:
        yield f"      … {len(lines) - _LINES} more lines; --json has all"


def _text(value: Json) -> str:
    if value is None:
        return ""
    return visible(value if isinstance(value, str) else as_block(value))


def _by(known: PinnedServer) -> str:
    return f"{visible(known.by)} at {visible(known.at)}"
