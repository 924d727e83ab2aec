"""Rows for what a run does with sandboxes: their moves, the programs that were run in them.

Pure. What programs wrote becomes no row of its own, and no part of one here: it is in the journal, sealed. Knows no
store and no backend.
"""

from __future__ import annotations

from typing import Any

from retinue.runs.asked import ASKED
from retinue.runs.capabilities import SANDBOX
from retinue.runs.contracts import Json
from retinue.runs.journal import Intent, Outcome, Record
from retinue.runs.steps import result_of
from retinue.traces.rows import Page, member, micros, names

EXECS = ("sandbox.exec", "shell", "python")
"""The capabilities that run a program in a sandbox."""
_STREAMS = ("stdout", "stderr")
_SAME = (
    "sandbox_id place name event cause key manifest manifest_version profile profile_digest backend status generation "
    "head_generation base_snapshot_id head_snapshot_id entries bytes node epoch can_resume can_snapshot must_recreate "
    "forked_from"
).split()


def move(page: Page, entry: Record) -> None:
    """A record of the topic `sandbox`: the whole state after a move. An exec that was lost is one of the execs too."""
    facts = entry.facts
    page.add(
        "sandbox_moves",
        {name: facts.get(name) for name in _SAME}
        | {
            "operation": facts.get("op"),
            "began_at": micros(facts.get("began_at")),
            "confinement": facts.get("confinement") or None,
            "tier": facts.get("tier") or None,
            "omitted": names(facts.get("omitted")),
            "opened_at": micros(facts.get("opened_at")),
            "closed_at": micros(facts.get("closed_at")),
        },
    )
    if facts.get("event") == "lost_exec":
        key = facts.get("key")
        left = page.state.open.get(str(key))
        asked = _called(left.intent.content if left else None)
        told = {"place": facts.get("place"), "key": key, "tool": facts.get("op"), "lost": True}
        page.add("sandbox_execs", told | asked)


def output(page: Page, entry: Record) -> None:
    """A record of the topic `output`: how much a program has written so far, and not what."""
    facts = entry.facts
    page.add("events", {"topic": entry.topic, "name": facts.get("name"), "facts": facts or None})


def ran(page: Page, intent: Intent | None, outcome: Outcome) -> None:
    """The end of a call that ran a program in a sandbox, also of one that was canceled or refused there; other calls
    give no row.
    """
    facts = (intent.facts if intent else {}) | outcome.facts
    if outcome.name not in EXECS or ("sandbox" not in facts and facts.get("source") != SANDBOX):
        return
    value, edited = result_of(outcome)
    asked = intent.content if intent else None
    page.add(
        "sandbox_execs",
        {
            "place": facts.get("sandbox") or member(asked, "sandbox"),
            "key": outcome.key,
            "call_id": facts.get("call_id"),
            "turn": facts.get("turn"),
            "tool": outcome.name,
            "result": outcome.result,
            "error_code": outcome.error.code if outcome.error else None,
            "exit_code": member(value, "exit_code"),
            "signal": member(value, "signal"),
            "limits": names(member(value, "limits")),
            "stdout_bytes": member(value, "stdout_bytes"),
            "stderr_bytes": member(value, "stderr_bytes"),
            "micros": member(value, "micros"),
            "generation": facts.get("generation"),
            "replayable": facts.get("replayable"),
            "lost": False,
            **_called(edited or asked),
        },
    )


def without_output(outcome: Outcome, value: Json) -> Json:
    """The value of a call, without what a program in a sandbox has written."""
    if not _is_exec(outcome) or not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if name not in _STREAMS}


def wanted_host(facts: dict[str, Any]) -> str | None:
    """Of the gate's stage `egress`: the host and port that it was asked about."""
    if facts.get("stage") != "egress":
        return None
    asked = member(facts.get(ASKED), "facts")
    return f"{member(asked, 'host')}:{member(asked, 'port')}"


def _is_exec(outcome: Outcome) -> bool:
    return outcome.name in EXECS and "sandbox" in outcome.facts


def _called(arguments: Any) -> dict[str, Any]:
    """The program and its folder as a call was made with them. A program that is handed over whole is not shown."""
    argv = member(arguments, "argv")
    if argv is None and member(arguments, "command") is not None:
        argv = ["sh", "-c", member(arguments, "command")]
    elif argv is None and member(arguments, "code") is not None:
        argv = ["python3", "-"]
    return {"argv": names(argv), "cwd": member(arguments, "cwd")}
