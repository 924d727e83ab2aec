"""Eight edits of one project, tried at once: each in a fork of its workspace, where its tests run; the best one stays.

`search` is the workflow to run. An edit comes from a model and is worth nothing before its tests have passed: it may
break the file, run for ever, or change the tests instead. None of that leaves its fork.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field

from retinue import Branch, Context, agent, workflow

TESTS = ("python3", "-m", "unittest", "-v", "test_intervals")
KEPT = "test_intervals.py"
"""The file that says what is right: no edit may change it."""


class Task(BaseModel):
    """What is to be mended, and in how many ways it is tried."""

    file: str
    complaint: str
    attempts: int = Field(default=8, ge=1, le=64)


class Change(BaseModel):
    """A text of a file that stands there once, and what it becomes."""

    file: str
    old: str
    new: str


class Edit(BaseModel):
    """What a model proposes."""

    idea: str
    changes: list[Change]


class Attempt(BaseModel):
    """One way to try: the workspace to start from, and the task."""

    number: int
    snapshot: str
    source: str
    complaint: str


class Tried(BaseModel):
    """What came of an attempt. `snapshot` is its workspace, `note` why it is no candidate."""

    number: int
    idea: str
    passed: int = 0
    failed: int = 0
    changed: int = 0
    snapshot: str | None = None
    note: str = ""


editor = agent(
    "editor",
    "The file has a fault. Propose one small edit that mends it, and say in a few words what the idea is.",
    input=Attempt,
    output=Edit,
)


async def run_tests(box: Any) -> tuple[int, int, str]:
    """How many tests passed and failed in a sandbox; why, where they did not come to an end."""
    done = await box.exec(*TESTS, timeout=5)
    verdicts = re.findall(r"\.\.\. (ok|FAIL|ERROR)$", done.stderr, re.MULTILINE)
    passed = verdicts.count("ok")
    if "timeout" in done.limits:
        return 0, 0, "its tests did not end in 5 s"
    if not done.ok and (not verdicts or "ImportError" in done.stderr or "SyntaxError" in done.stderr):
        return 0, 0, done.stderr.strip().splitlines()[-1] if not verdicts else "it cannot be imported"
    return passed, len(verdicts) - passed, ""


@workflow
async def attempt(ctx: Context, task: Attempt) -> Tried:
    """Have one edit proposed and tried in a fork of the workspace."""
    edit = await ctx.run(editor, task)
    tried = Tried(number=task.number, idea=edit.idea, changed=sum(len(change.new) for change in edit.changes))
    if any(change.file == KEPT for change in edit.changes):
        return tried.model_copy(update={"note": "it would change the tests"})
    box = await ctx.sandbox("coder", snapshot=task.snapshot)
    for change in edit.changes:
        await box.edit(change.file, change.old, change.new)
    passed, failed, note = await run_tests(box)
    found = {"passed": passed, "failed": failed, "note": note, "snapshot": await box.snapshot()}
    return tried.model_copy(update=found)


def best_of(branches: list[Branch]) -> Tried | None:
    """The candidate with the most passed tests; of equals the one that changes least."""
    tried = [Tried.model_validate(branch.value) for branch in branches if branch.ok]
    candidates = [one for one in tried if one.snapshot and not one.note]
    return max(candidates, key=lambda one: (one.passed, -one.changed, -one.number), default=None)


@workflow
async def search(ctx: Context, task: Task) -> dict[str, Any]:
    """Try many edits at once and keep the best; returns the table of attempts and what was kept."""
    box = await ctx.sandbox("coder")
    passed, failed, _ = await run_tests(box)
    if not failed:
        return {"passed": passed, "failed": 0, "kept": None, "tried": []}
    source = await box.read(task.file)
    start = await box.snapshot()
    ways = [
        Attempt(number=number, snapshot=start, source=str(source), complaint=task.complaint)
        for number in range(1, task.attempts + 1)
    ]
    branches = await ctx.map(attempt, ways, window=4)
    tried = [
        branch.value if branch.ok else {"number": n, "note": branch.problem} for n, branch in enumerate(branches, 1)
    ]
    best = best_of(branches)
    if best is None or best.snapshot is None or best.passed <= passed:
        return {"passed": passed, "failed": failed, "kept": None, "tried": tried}
    await box.adopt(best.snapshot)
    passed, failed, _ = await run_tests(box)
    ctx.check("tests", passed, passed + failed)
    return {"passed": passed, "failed": failed, "kept": best.number, "tried": tried, "file": await box.read(task.file)}
