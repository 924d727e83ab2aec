"""What the gate has decided, by the journal: explained, and asked again of other rules.

Knows no terminal. What journals lack is told of, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import cast

from retinue.policy.facts import Facts, Unclear, sort_values
from retinue.policy.gate import CedarGate
from retinue.policy.reads import ANY
from retinue.policy.reads import Field as ReadField
from retinue.policy.view import RESOURCE_TYPES
from retinue.runs.asked import Question, questions
from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import UnknownName
from retinue.runs.gate import GateRequest
from retinue.runs.journal import Frame
from retinue.store.store import Store

MOST = 10_000
"""Runs that are looked at, unless said otherwise."""
LISTED = 1_000
"""Differences that are told one by one; beyond that they are counted."""
_PAGE = 500
_DIGEST = "recorded"
_MARGIN_NS = 3_600_000_000_000
"""How far clocks of hosts may differ: the search for the first frame begins so much earlier."""
_SWITCH = "retinue.kill_switch"


class Explained(Frozen):
    """One decision. `saw` are the fields that the deciding rules read, with their values, or all that rules could see
    where none decided or they are not in force any more (`in_force`). `lacks` names what the journal does not hold.
    """

    at: int
    step: str | None
    stage: str
    resource: str
    outcome: str
    reason: str
    rules: tuple[dict[str, str], ...]
    digest: str
    in_force: bool
    micros: int
    saw: dict[str, Json]
    approval: dict[str, Json] | None = None
    edited: dict[str, Json] | None = None
    lacks: tuple[str, ...] = ()


class Difference(Frozen):
    """A recorded question that the other rules answer otherwise."""

    run_id: str
    step: str | None
    stage: str
    resource: str
    at: int
    before: str
    after: str
    rules_before: tuple[str, ...]
    rules_after: tuple[str, ...]
    reason: str


class Replayed(Frozen):
    """What rules say of recorded questions: how many say the same, by other rules, or something else.

    `not_rebuilt` counts, by what is lacking, the questions of journals that do not hold what these rules read; `switch`
    those that a kill switch had answered. `more`: not all runs were looked at.
    """

    digest: str
    runs: int = 0
    asked: int = 0
    same: int = 0
    other_rules: int = 0
    changed: dict[str, int] = {}
    differences: tuple[Difference, ...] = ()
    not_rebuilt: dict[str, int] = {}
    switch: int = 0
    more: bool = False


async def explain(store: Store, gate: CedarGate | None, run_id: str, step: str | None) -> list[Explained]:
    """Every decision of a run, or those of a step (its key, or part of it), beside the rules in force, if they can be
    read. UnknownName when there is none.
    """
    record = await store.get(run_id)
    found = list(questions([frame async for frame in store.read(record.run_id)]))
    wanted = [one for one in found if step is None or step in (one.key or "")]
    if not wanted:
        steps = ", ".join(dict.fromkeys(one.key for one in found if one.key)) or "none"
        what = f"step {step!r} of run {record.run_id}" if step else f"run {record.run_id}"
        raise UnknownName(f"the gate was asked nothing about {what}; steps with a decision: {steps}")
    return [_explained(gate, one) for one in wanted]


def _explained(gate: CedarGate | None, one: Question) -> Explained:
    said, approval = one.said, one.approval
    hits = tuple(
        {"rule": str(hit.get("rule")), "outcome": str(hit.get("outcome")), "reason": str(hit.get("reason"))}
        for hit in said.get("rules") or ()
    )
    in_force = gate is not None and said.get("digest") == gate.digest
    by_id = {rule.id: rule for rule in gate.rules} if gate is not None else {}
    reads = [by_id[hit["rule"]].reads for hit in hits if hit["rule"] in by_id] if in_force and hits else None
    given = {"request_id": approval.request_id, "by": approval.by, "at": approval.at} if approval else None
    return Explained(
        at=one.at,
        step=one.key,
        stage=one.request.stage,
        resource=one.request.resource,
        outcome=str(said.get("outcome")),
        reason=str(said.get("reason")),
        rules=hits,
        digest=str(said.get("digest")),
        in_force=in_force,
        micros=int(cast(int, said.get("micros") or 0)),
        saw=_everything(one.request) if reads is None else _seen(one, [field for each in reads for field in each]),
        approval=given,
        edited=one.edited,
        lacks=one.lacks,
    )


def _everything(request: GateRequest) -> dict[str, Json]:
    names = ("tenant", "principal", "agent", "route", "depth", "version", "side_effect", "idempotency", "sensitivity")
    said = {name: getattr(request, name) for name in (*names, "rollout", "budget", "arguments", "facts")}
    return {name: value for name, value in said.items() if value not in (None, {}, "")}


def _seen(one: Question, reads: Iterable[ReadField]) -> dict[str, Json]:
    """The fields that rules read, by their names in rules, with what they held."""
    request, bags = one.request, dict[str, Facts]()
    found: dict[str, Json] = {}
    for read in sorted(set(reads)):
        name = ".".join(read)
        if read[0] in one.lacks:
            found[name] = "(not in this journal)"
        elif read == (ANY,):
            found |= _everything(request)
        elif read == ("approved",):
            found[name] = one.approval is not None and one.approval.by != request.principal
        elif read[0] in ("arguments", "facts", "hosts"):
            found[name] = _value(request, read, bags)
        else:
            value = getattr(request, read[0])
            found[name] = value.get(read[1]) if len(read) > 1 and isinstance(value, dict) else value
    return found


def _value(request: GateRequest, read: ReadField, bags: dict[str, Facts]) -> Json:
    bag = "facts" if read[0] == "facts" else "arguments"
    values: dict[str, Json] = getattr(request, bag)
    if read[0] == bag and (len(read) < 3 or read[2] == ANY):
        return values
    try:
        facts = bags.get(bag) or bags.setdefault(bag, sort_values(values))
    except Unclear:
        return values
    if read[0] == "hosts":
        return sorted(facts.hosts)
    return sorted(facts.names) if read[1] == "names" else facts.kinds[read[1]].get(read[2])


async def replay(store: Store, gate: CedarGate, since: int, most: int = MOST) -> Replayed:
    """What the rules of a gate say of every question recorded since a moment (Unix ns), in at most so many runs.

    A yes that was there is taken as given under these rules. Reads the journal; changes nothing.
    """
    tally = _Tally(gate)
    seen: set[str] = set()
    more = False
    async for frame in _since(store, since):
        if frame.run_id in seen:
            continue
        if len(seen) == most:
            more = True
            break
        seen.add(frame.run_id)
        for one in questions([each async for each in store.read(frame.run_id)]):
            if one.at >= since:
                tally.ask(one)
    return tally.said(len(seen), more)


async def _since(store: Store, since: int) -> AsyncIterator[Frame]:
    """Frames that may hold entries of after a moment, in commit order."""
    low, high = 0, await store.newest()
    while high - low > 1:
        middle = (low + high) // 2
        found = await store.tail(middle, 1)
        if found and _newest(found[0]) < since - _MARGIN_NS:
            low = middle
        else:
            high = middle
    after = low
    while frames := await store.tail(after, _PAGE):
        for frame in frames:
            if _newest(frame) >= since:
                yield frame
        after = frames[-1].seq


def _newest(frame: Frame) -> int:
    return max((entry.at for entry in frame.entries), default=0)


class _Tally:
    def __init__(self, gate: CedarGate) -> None:
        self._gate = gate
        self._counts = Counter[str]()
        self._changed, self._lacking = Counter[str](), Counter[str]()
        self._different: list[Difference] = []

    def ask(self, one: Question) -> None:
        request = one.request
        if request.stage not in RESOURCE_TYPES:
            return
        self._counts["asked"] += 1
        before = tuple(str(hit.get("rule")) for hit in one.said.get("rules") or ())
        lacking = sorted(set(one.lacks) & (self._gate.view_of(request.stage, request.resource).reads() | _ALWAYS))
        if _SWITCH in before:
            self._counts["switch"] += 1
            return
        if lacking:
            self._lacking[", ".join(lacking)] += 1
            return
        decision = self._gate.decide(_asked_again(one, self._gate.digest))
        after = tuple(hit.rule for hit in decision.rules)
        if decision.outcome == one.outcome:
            self._counts["same" if sorted(before) == sorted(after) else "other_rules"] += 1
            return
        self._changed[f"{one.outcome} to {decision.outcome}"] += 1
        if len(self._different) < LISTED:
            self._different.append(
                Difference(
                    run_id=request.run_id,
                    step=one.key,
                    stage=request.stage,
                    resource=request.resource,
                    at=one.at,
                    before=one.outcome,
                    after=decision.outcome,
                    rules_before=before,
                    rules_after=after,
                    reason=decision.reason,
                )
            )

    def said(self, runs: int, more: bool) -> Replayed:
        counts = {name: self._counts[name] for name in ("asked", "same", "other_rules", "switch")}
        return Replayed(
            digest=self._gate.digest,
            runs=runs,
            **counts,
            changed=dict(self._changed),
            differences=tuple(self._different),
            not_rebuilt=dict(self._lacking),
            more=more,
        )


_ALWAYS = frozenset({"side_effect", "idempotency"})
"""What the invariants look at, whatever rules read."""


def _asked_again(one: Question, policy_digest: str) -> GateRequest:
    given = one.approval
    if given is not None:
        given = given.model_copy(update={"digest": _DIGEST, "policy_digest": policy_digest})
    return one.request.model_copy(update={"digest": _DIGEST, "approval": given})
