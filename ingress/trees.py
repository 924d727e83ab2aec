"""A tree of runs as text: one line a run, indented by level, bounded, with what was left out. Pure.

Knows no store and no stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from retinue.ingress.render import money, short, standing, took
from retinue.runs.contracts import Json, RunRecord, Status
from retinue.runs.control import RunTree

SHOWN = 200
"""Runs of one tree that are shown."""
LEVELS = 6
"""Levels of one tree that are shown, its root's included."""


def tree_text(tree: RunTree, now_ns: int) -> str:
    """The tree, a run above what is below it; what has not ended comes first."""
    return "\n".join(_lines(tree, tree.records[0], 0, now_ns))


def tree_facts(tree: RunTree) -> Json:
    """The tree as nested JSON: `children` of each run that is shown, `hidden` counts those that are not, by status."""
    return _facts(tree, tree.records[0])


def _facts(tree: RunTree, record: RunRecord) -> dict[str, Json]:
    return {
        "run_id": record.run_id,
        "target": record.target,
        "status": record.status.value,
        "held": record.held and not record.status.terminal,
        "reason": record.reason.value if record.reason else None,
        "input_id": record.input_id,
        "children": [_facts(tree, child) for child in _shown(tree, record)],
        "hidden": {status.value: count for status, count in _hidden(tree, record).items()},
    }


def _lines(tree: RunTree, record: RunRecord, level: int, now_ns: int) -> Iterator[str]:
    yield "  " * level + _line(record, now_ns)
    for child in _shown(tree, record):
        yield from _lines(tree, child, level + 1, now_ns)
    hidden = _hidden(tree, record)
    if hidden:
        parts = ", ".join(f"{count:,} {status.value}" for status, count in sorted(hidden.items()))
        yield "  " * (level + 1) + f"… {hidden.total():,} more: {parts}"


def _line(record: RunRecord, now_ns: int) -> str:
    status = standing(record) + (f" ({record.reason.value})" if record.reason else "")
    cost = money(record.usage.micros) if record.usage.micros else ""
    parts = (short(record.run_id), record.target, record.input_id, status, took(record, now_ns), cost)
    return "  ".join(part for part in parts if part)


def _shown(tree: RunTree, record: RunRecord) -> list[RunRecord]:
    return [child for child in tree.records if child.parent_run_id == record.run_id]


def _hidden(tree: RunTree, record: RunRecord) -> Counter[Status]:
    counts = Counter(tree.children.get(record.run_id, {}))
    counts.subtract(child.status for child in _shown(tree, record))
    return +counts
