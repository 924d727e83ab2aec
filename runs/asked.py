"""What the gate was asked, as the journal keeps it: written in few bytes beside each decision, and read back.

An entry with a decision has `asked`: what rules can read of the request and neither the entry nor the run's own request
says. What has its usual value is left out. Knows no rule.

What journals before `asked` lack is named in `Question.lacks`: no rule that reads it can be asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from retinue.runs.capabilities import SANDBOX, Caller, Capability, Prepared, concerned
from retinue.runs.contracts import Json, RunRequest
from retinue.runs.gate import Approval, GateRequest, in_full
from retinue.runs.identity import APPROVAL, is_question, step_of
from retinue.runs.journal import Accepted, AnyEntry, Frame, Intent, Outcome, Record

ASKED = "asked"
"""The fact that holds it, and the topic of the record beside a call that was refused."""

_USUAL: dict[str, Json] = {
    "version": "1",
    "side_effect": "read",
    "idempotency": None,
    "sensitivity": "internal",
    "rollout": "full",
    "budget": {},
    "facts": {},
}
_OF_A_CALL = ("sensitivity", "rollout", "budget")
_OF_A_STAGE = ("facts", "budget", "idempotency", "side_effect")
_NOT_OF_A_MODEL = {"prompt", ASKED}
_TURNED_DOWN = ("refused", "unknown")
"""How a call ends that the gate does not allow; the second where an earlier try of it may have been made."""


def asked_of_call(call: Prepared, caller: Caller) -> dict[str, Json]:
    """Of a call that is made: what its intent does not say in any case."""
    capability = call.capability
    said: dict[str, Json] = {"sensitivity": capability.sensitivity, "rollout": capability.stage}
    said |= {"budget": caller.budget, "facts": caller.facts}
    return _unusual(said) | _judged_as(capability, caller)


def _judged_as(capability: Capability, caller: Caller) -> dict[str, Json]:
    """Of a call in a sandbox: the stage it was asked at, of which manifest, and as what it counted there."""
    if capability.source != SANDBOX:
        return {}
    judged = concerned(capability, caller)
    return {"stage": judged.stage, "resource": judged.resource, "side_effect": judged.side_effect}


def asked_in_full(call: Prepared, caller: Caller) -> dict[str, Json]:
    """Of a call that is not made, or not yet: all of it but the arguments, which are content."""
    capability = call.capability
    contract = capability.idempotency if capability.side_effect == "write" else None
    said = {"version": capability.version, "side_effect": capability.side_effect, "idempotency": contract}
    return _unusual(said) | asked_of_call(call, caller)


def asked_at_stage(request: GateRequest, facts: bool) -> dict[str, Json]:
    """At a stage that is about no call; its `facts` are left out where the intent of the same step has them."""
    said = {name: getattr(request, name) for name in ("side_effect", "idempotency", "budget", "rollout")}
    return _unusual(said | ({"facts": request.facts} if facts else {}))


def _unusual(said: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in said.items() if value != _USUAL[name]}


@dataclass(frozen=True, slots=True)
class Question:
    """One recorded question and its answer: when (Unix ns), for which step (None: none), what, and what was said.

    `said` is the decision in full; `approval` the yes that was there, `edited` who changed the arguments and their
    digests. `lacks` names fields of the request that this journal does not hold.
    """

    at: int
    key: str | None
    request: GateRequest
    said: dict[str, Json]
    approval: Approval | None = None
    edited: dict[str, Json] | None = None
    lacks: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """What the rules said. A fork that asks a person before it repeats a write does so in spite of their yes."""
        hits = self.said.get("rules") or ()
        return "allow" if hits and all(hit.get("outcome") == "allow" for hit in hits) else str(self.said["outcome"])


@dataclass(slots=True)
class _Reader:
    """What is known of one run after the entries so far. `thinking` and `remembering` are the places of questions whose
    facts or arguments come with the intent that follows them."""

    run: RunRequest | None = None
    found: list[Question] = field(default_factory=list)
    asking: dict[str, Intent] = field(default_factory=dict)
    yes: dict[str, tuple[Intent, Outcome]] = field(default_factory=dict)
    refused: dict[str, Record] = field(default_factory=dict)
    thinking: list[int] = field(default_factory=list)
    remembering: dict[str, list[int]] = field(default_factory=dict)

    def take(self, entry: AnyEntry) -> None:
        match entry:
            case Accepted():
                self.run = entry.request
            case Record() if entry.topic == "policy":
                self._at_stage(entry)
            case Record() if entry.topic == ASKED:
                self.refused[str(entry.facts.get("key"))] = entry
            case Intent():
                self._intended(entry)
            case Outcome() if is_question(entry.key):
                self._answered(entry)
            case Outcome() if entry.result in _TURNED_DOWN and "gate" in entry.facts:
                if entry.key not in self.remembering:
                    self._turned_down(entry)

    def _intended(self, entry: Intent) -> None:
        if entry.effect == "model":
            self._model(entry)
        elif step_of(entry.key) in self.remembering:
            self._memory(entry)
        elif entry.key.endswith(APPROVAL) and "gate" in entry.facts:
            self.asking[entry.key] = entry
            arguments = entry.content.get("arguments") if isinstance(entry.content, dict) else None
            known = {"version": entry.facts.get("version"), "digest": entry.facts.get("digest")}
            self._call(entry, entry.key, entry.name, known, arguments)
        elif entry.effect == "call" and "gate" in entry.facts:
            names = ("version", "side_effect", "idempotency")
            known = {name: entry.facts[name] for name in names if name in entry.facts}
            self._call(entry, entry.key, entry.name, known, entry.content)

    def _answered(self, entry: Outcome) -> None:
        intent = self.asking.get(entry.key)
        if intent is not None and entry.facts.get("status") == "approved":
            self.yes[step_of(entry.key)] = (intent, entry)

    def _turned_down(self, entry: Outcome) -> None:
        record = self.refused.pop(entry.key, None)
        if record is None:
            self._call(entry, entry.key, entry.name, {}, None)
            return
        facts = dict(record.facts) | {"gate": entry.facts["gate"]}
        arguments = record.content.get("arguments") if isinstance(record.content, dict) else None
        self._call(record.model_copy(update={"facts": facts}), entry.key, entry.name, {}, arguments)

    def _call(self, entry: Any, key: str, name: str, known: dict[str, Json], arguments: Json) -> None:
        asked = entry.facts.get(ASKED)
        lacks: tuple[str, ...] = () if asked is not None else _OF_A_CALL
        if asked is None and "side_effect" not in known:
            lacks += ("side_effect", "idempotency") + (("version",) if "version" not in known else ())
        if not isinstance(arguments, dict):
            lacks += ("arguments", "hosts")
        digest = str(known.pop("digest", None) or "recorded")
        given = {**_USUAL, **known, **(asked or {}), "digest": digest, "arguments": arguments or {}}
        stage, resource = given.pop("stage", "capability"), given.pop("resource", name)
        self._add(entry, step_of(key), stage, resource, given, lacks)

    def _at_stage(self, entry: Record) -> None:
        asked = entry.facts.get(ASKED)
        stage, key = str(entry.facts.get("stage")), entry.facts.get("key")
        lacks = _OF_A_STAGE if asked is None else ()
        said = in_full(entry.facts.get("decision") or {})
        follows = stage == "model" and said.get("outcome") == "allow"
        if follows:
            self.thinking.append(len(self.found))
            lacks = (*lacks, *(() if "facts" in lacks else ("facts",)))
        if stage == "memory":
            self.remembering.setdefault(str(key), []).append(len(self.found))
            lacks = (*lacks, "arguments", "hosts")
        given = _USUAL | (asked or {})
        facts = dict(entry.facts) | {"gate": entry.facts.get("decision")}
        record = entry.model_copy(update={"facts": facts})
        self._add(record, key, stage, str(entry.facts.get("resource")), given, lacks)

    def _model(self, intent: Intent) -> None:
        """The facts of a model call stand with its intent, which follows the decision."""
        for number in self.thinking:
            question = self.found[number]
            if question.key in (None, intent.key) and question.request.resource == intent.name:
                facts = {name: value for name, value in intent.facts.items() if name not in _NOT_OF_A_MODEL}
                lacks = tuple(name for name in question.lacks if name != "facts")
                request = question.request.model_copy(update={"facts": facts})
                self.found[number] = replace(question, key=intent.key, request=request, lacks=lacks)
                self.thinking.remove(number)
                return

    def _memory(self, intent: Intent) -> None:
        """The arguments of a memory stand with the intent that follows the decisions about it, or with the question
        whether it may be written."""
        given = intent.content
        if is_question(intent.key):
            self.asking[intent.key] = intent
            given = given.get("arguments") if isinstance(given, dict) else None
        if not isinstance(given, dict):
            return
        names = ("query", "k") if intent.effect == "recall" else given.keys() - {"scope", "owner"}
        arguments = {name: given.get(name) for name in names}
        for number in self.remembering[step_of(intent.key)]:
            one = self.found[number]
            if "arguments" not in one.lacks:
                continue
            request = one.request.model_copy(update={"arguments": arguments})
            lacks = tuple(name for name in one.lacks if name not in ("arguments", "hosts"))
            self.found[number] = replace(one, request=request, lacks=lacks)

    def _add(
        self, entry: Any, key: str | None, stage: str, resource: str, given: Mapping[str, Json], lacks: tuple[str, ...]
    ) -> None:
        run = self.run
        if run is None:
            return
        request = GateRequest.model_construct(
            stage=stage,
            run_id=run.run_id,
            tenant=run.tenant_id,
            principal=run.principal_id,
            agent=run.target,
            route=run.route,
            depth=run.depth,
            resource=resource,
            **{"digest": "", "arguments": {}, "approval": None, "now": 0, **given},
        )
        said = in_full(entry.facts.get("gate") or {})
        asks = isinstance(entry, Intent) and is_question(entry.key)
        yes = self._yes(key) if stage in ("capability", "memory", "sandbox") and not asks else None
        edited = entry.facts.get("edited")
        self.found.append(Question(entry.at, key, request, said, yes, edited, lacks))

    def _yes(self, key: str | None) -> Approval | None:
        """The yes that was there when the step was decided; the journal has it before the decision."""
        found = self.yes.get(key or "")
        if found is None:
            return None
        intent, outcome = found
        return Approval(
            request_id=str(outcome.facts.get("request_id")),
            by=str(outcome.facts.get("by")),
            at=outcome.at,
            digest=str(intent.facts.get("digest")),
            policy_digest=str(intent.facts.get("policy_digest")),
        )


def of_memory(facts: Mapping[str, Json]) -> bool:
    """True of the facts of a question about a memory: what was asked stands in a record of its own."""
    return (facts.get(ASKED) or {}).get("stage") == "memory"


def questions(frames: Iterable[Frame]) -> Iterator[Question]:
    """Every question to the gate that the frames of one run hold, from its beginning on, in their order."""
    reader = _Reader()
    for frame in frames:
        for entry in frame.entries:
            reader.take(entry)
    return iter(reader.found)
