"""Rows for what a run records besides its effects: decisions, context, observations, verdicts of the gate.

Owns the topics. Pure: a record in, rows out; a topic without a table of its own goes to events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retinue.runs.gate import in_full
from retinue.runs.journal import Record
from retinue.traces.file import Row
from retinue.traces.rows import Page, member, micros, names
from retinue.traces.sandboxes import move, output, wanted_host


def record(page: Page, entry: Record) -> None:
    """Rows by topic."""
    TOPICS.get(entry.topic, _event)(page, entry)


def add_gate_decision(page: Page, decision: Any, about: Row) -> None:
    """A decision of the gate, wherever an entry carries one; `about` says what was decided."""
    if not isinstance(decision, dict):
        return
    decision = in_full(decision)
    hits = decision.get("rules")
    page.add(
        "policy_decisions",
        about
        | {
            "outcome": decision.get("outcome"),
            "reason": decision.get("reason"),
            "rules": [str(member(hit, "rule")) for hit in hits] if isinstance(hits, list | tuple) else None,
            "hits": hits,
            "policy_digest": decision.get("digest"),
            "micros": decision.get("micros"),
        },
    )


def _decision(page: Page, entry: Record) -> None:
    facts = entry.facts
    page.add(
        "decisions",
        {
            "turn": facts.get("turn"),
            "type": facts.get("type"),
            "tools": names(facts.get("tools")),
            "decision": entry.content,
        },
    )


def _context(page: Page, entry: Record) -> None:
    facts = entry.facts
    found = facts.get("items")
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list | tuple) else []
    page.add(
        "context_packets",
        {
            "turn": facts.get("turn"),
            "tokens": facts.get("tokens"),
            "token_limit": facts.get("limit"),
            "items": len(items),
            "omitted": sum(not item.get("included", True) for item in items),
            "messages": member(entry.content, "messages"),
        },
    )
    for number, item in enumerate(items):
        page.add(
            "context_items",
            {
                "turn": facts.get("turn"),
                "number": number,
                "source": item.get("source"),
                "kind": item.get("kind"),
                "tokens": item.get("tokens"),
                "included": item.get("included", True),
                "reason": item.get("reason") or None,
                "fresh_at": micros(item.get("fresh_at")),
            },
        )


def _observation(page: Page, entry: Record) -> None:
    facts = entry.facts
    page.add(
        "observations",
        {
            "turn": facts.get("turn"),
            "observation_id": facts.get("id"),
            "kind": facts.get("kind"),
            "result": facts.get("result"),
            "name": facts.get("name"),
            "call_id": facts.get("call_id"),
            "summary": facts.get("summary") or member(entry.content, "summary"),
            "data": member(entry.content, "data"),
        },
    )


def _validation(page: Page, entry: Record) -> None:
    facts = entry.facts
    page.add(
        "validations",
        {
            "turn": facts.get("turn"),
            "what": facts.get("what"),
            "ok": facts.get("ok"),
            "errors": names(facts.get("errors")),
            "stage": facts.get("stage"),
            "stages": names(facts.get("stages")),
            "rules": names(facts.get("rules")),
            "warnings": names(member(entry.content, "warnings")),
            "checks": facts.get("checks"),
            "confidence": facts.get("confidence"),
            "verdict": facts.get("verdict"),
            "decided_by": facts.get("by"),
        },
    )


def _obligation(page: Page, entry: Record) -> None:
    facts = entry.facts
    page.add(
        "obligations",
        {
            "turn": facts.get("turn"),
            "obligation_id": facts.get("id"),
            "event": facts.get("event"),
            "declared_by": facts.get("by"),
            "since": facts.get("since"),
            "settled_by": facts.get("settled_by"),
            "text": member(entry.content, "text"),
        },
    )


def _compaction(page: Page, entry: Record) -> None:
    facts = entry.facts
    same = ("turn", "number", "first_turn", "last_turn", "tokens_before", "tokens_after")
    dropped = member(entry.content, "dropped")
    page.add(
        "compactions",
        {name: facts.get(name) for name in same}
        | {
            "messages": facts.get("count"),
            "token_limit": facts.get("limit"),
            "dropped": names(dropped),
            "recap": member(entry.content, "recap"),
        },
    )


def _reset(page: Page, entry: Record) -> None:
    facts = entry.facts
    page.add(
        "resets",
        {
            "turn": facts.get("turn"),
            "number": facts.get("number"),
            "decided_by": facts.get("by"),
            "messages": facts.get("count"),
            "obligations": facts.get("obligations"),
            "artifact": entry.content,
        },
    )


def _policy(page: Page, entry: Record) -> None:
    facts = entry.facts
    about = {name: facts.get(name) for name in ("key", "turn", "call_id", "stage", "resource")}
    about["host"] = wanted_host(facts)
    add_gate_decision(page, facts.get("decision"), about)


def _handoff(page: Page, entry: Record) -> None:
    facts = dict(entry.facts)
    source, target = facts.pop("from", None), facts.pop("to", None)
    page.add(
        "handoffs",
        {"from_agent": source, "to_agent": target, "facts": facts or None, "content": entry.content},
    )


def _dead_letter(page: Page, entry: Record) -> None:
    facts = entry.facts
    page.add(
        "dead_letters",
        {
            "source": str(facts.get("source", "")),
            "line": facts.get("line"),
            "reason": str(facts.get("reason", "unreadable")),
            "message": facts.get("message"),
            "content": entry.content,
        },
    )


def _session(page: Page, entry: Record) -> None:
    facts = entry.facts
    wire = facts.get("wire")
    same = ("server", "number", "before", "status", "cause", "key")
    page.add(
        "session_changes",
        {name: facts.get(name) for name in same}
        | {name: member(wire, name) or None for name in ("scope", "transport", "protocol", "pins", "expires_from")}
        | {
            "capability_session_id": facts.get("session_id"),
            "approval": facts.get("approval") or None,
            "wire_session_id": member(wire, "session_id"),
            "expires_at": micros(member(wire, "expires_at")),
            "opened_at": micros(facts.get("opened_at")),
            "closed_at": micros(facts.get("closed_at")),
        },
    )


def _continuation(page: Page, entry: Record) -> None:
    """Without the token, which is a credential."""
    facts = entry.facts
    same = ("key", "server", "event", "issue", "round", "once")
    page.add(
        "continuations",
        {name: facts.get(name) for name in same}
        | {
            "capability_session_id": facts.get("session_id"),
            "kinds": names(facts.get("kinds")),
            "expires_at": micros(facts.get("expires_at")),
            "questions": member(entry.content, "questions"),
        },
    )


def _event(page: Page, entry: Record) -> None:
    facts = entry.facts
    name = facts.get("stage") if entry.topic == "stage" else facts.get("name")
    page.add(
        "events",
        {
            "turn": facts.get("turn"),
            "topic": entry.topic,
            "name": name,
            "facts": facts or None,
            "content": entry.content,
        },
    )


TOPICS: dict[str, Callable[[Page, Record], None]] = {
    "decision": _decision,
    "context": _context,
    "observation": _observation,
    "validation": _validation,
    "obligation": _obligation,
    "compaction": _compaction,
    "reset": _reset,
    "policy": _policy,
    "handoff": _handoff,
    "dead_letter": _dead_letter,
    "session": _session,
    "continuation": _continuation,
    "sandbox": move,
    "output": output,
}
