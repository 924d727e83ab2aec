"""What must be the same after a kill as without one, and what may differ. Every complaint is a sentence.

The same: every run with its status, reason and output; every step with its outcome; every effect outside. Different
may be: owners, epochs, times, tries, what was charged for a call nobody saw end, and whether a step that must not be
repeated is known to have happened. Pure: reads what lives have told and the outside log.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.crash import outside, project
from tests.doubles import desk

from retinue.runs.contracts import Json
from retinue.runs.identity import effect_key
from retinue.runs.tracing import span_id_of

Entry = dict[str, Any]
DIFFERENT = ("usage", "micros")
"""Fields that another life may fill with another value: what was spent, how long something took."""
COUNTS = ("total", "ok", "failed", "rejected")
"""Facts of a fan-out's outcome that every life must agree on."""
ONCE = "it once"
"""The text of the plain step that must not be repeated."""


@dataclass(frozen=True)
class Run:
    """A run as its journal tells it. `name` says where it hangs in the tree, whatever its id."""

    name: str
    id: str
    scope: str
    record: Entry
    entries: list[Entry]
    positions: list[int]
    boxes: dict[str, dict[str, Json]]

    @property
    def end(self) -> tuple[str, str | None]:
        """Status and reason."""
        return self.record["status"], self.record["reason"]

    def of(self, *kinds: str) -> list[Entry]:
        """The entries of these kinds."""
        return [entry for entry in self.entries if entry["kind"] in kinds]

    @property
    def sandboxes(self) -> dict[str, str]:
        """The ids of its sandboxes, each with the step that opened it."""
        opened = [e["facts"] for e in self.of("record") if e["topic"] == "sandbox" and e["facts"]["event"] == "opened"]
        return {facts["sandbox_id"]: facts["key"] for facts in opened}

    def keys_outside(self, entry: Entry) -> str:
        """Under which key the outside log knows a step."""
        if entry["effect"] == "model":
            return span_id_of(self.id, entry["key"])
        if entry["effect"] == "step":
            content = next(i["content"] for i in self.of("intent") if i["key"] == entry["key"])
            return f"step:{content[0]}"
        return effect_key(self.scope, entry["key"])


@dataclass(frozen=True)
class Story:
    """All that became of a scenario: its runs by name, and what was done outside."""

    told: dict[str, Any]
    log: list[outside.Line]
    life: int

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Every run by its name."""
        names: dict[str | None, str] = {None: ""}
        for told in self.told["runs"]:
            key, index = told["place"]
            parent = told["record"]["parent_run_id"]
            top = "fork" if told["fork"] else "root"
            names[told["record"]["run_id"]] = f"{names[parent]}/{key}[{index}]" if parent else top
        found = {}
        for told in self.told["runs"]:
            run_id = told["record"]["run_id"]
            run = Run(
                names[run_id], run_id, told["scope"], told["record"], told["entries"], told["positions"], told["boxes"]
            )
            found[run.name] = run
        return found

    def plain(self, value: Json) -> Json:
        """A value without what another life says differently: ids of runs, and what was spent."""
        text = json.dumps(value)
        for run in self.runs.values():
            text = text.replace(run.id, run.name)
            for id, key in run.sandboxes.items():
                text = text.replace(id, f"{run.name} {key}").replace(id[-6:], key)
        return json.loads(text, object_hook=lambda found: {k: v for k, v in found.items() if k not in DIFFERENT})


def read_story(folder: Path, life: int) -> Story:
    """What the life told and the whole outside log."""
    return Story(json.loads((folder / f"life-{life}.json").read_text()), outside.read(folder), life)


def complaints(calm: Story, rough: Story, most: int | None) -> list[str]:
    """Everything that is wrong after a kill and a second life; empty when nothing is."""
    if set(calm.runs) != set(rough.runs):
        return [f"runs differ: {sorted(set(calm.runs) ^ set(rough.runs))}"]
    wrong = [f"{len(rough.told['strays'])} operations came from no point"] if rough.told["strays"] else []
    wrong += ["requests are left open"] if rough.told["open"] else []
    for name, run in rough.runs.items():
        wrong += [
            f"{name}: {said}"
            for said in [*_journal(run), *_boxes(run), *_unreported(run), *_compared(calm, rough, name)]
        ]
    return [*wrong, *_repeated(rough), *_effects(calm, rough), *_money(rough, most)]


def _boxes(run: Run) -> Iterator[str]:
    """The rows beside the journal say of sandboxes what the journal says last."""
    said = {e["facts"]["sandbox_id"]: e["facts"] for e in run.of("record") if e["topic"] == "sandbox"}
    if run.boxes.keys() != said.keys():
        yield f"rows of sandboxes are {sorted(run.boxes)}, the journal has {sorted(said)}"
    for id, state in run.boxes.items():
        if any(said.get(id, {}).get(name) != value for name, value in state.items()):
            yield f"the row of sandbox {id} is not what the journal says of it: {state}, {said.get(id)}"


def _journal(run: Run) -> Iterator[str]:
    """What a journal must be by itself."""
    if run.positions != list(range(1, len(run.entries) + 1)):
        yield f"positions have gaps or overlap: {run.positions}"
    if len(run.of("finished")) != 1 + len(run.of("retried")) or run.entries[-1]["kind"] != "finished":
        yield f"it has {len(run.of('finished'))} ends, the last entry is {run.entries[-1]['kind']}"
    ended: dict[str, str] = {}
    for entry in run.of("intent", "attempt", "outcome", "retried"):
        if entry["kind"] == "retried":
            ended = {key: result for key, result in ended.items() if result == "ok" and key != entry["again"]}
            continue
        if entry["key"] in ended:
            yield f"step {entry['key']} had ended, then came another {entry['kind']}"
        if entry["kind"] == "outcome":
            ended[entry["key"]] = entry["result"]


def _unreported(run: Run) -> Iterator[str]:
    """Programs that were in flight when an owner died, and nobody was told of."""
    begun: set[str] = set()
    lost: set[str] = set()
    for entry in run.of("intent", "outcome", "leased", "record"):
        if entry["kind"] == "leased":
            lost |= begun
        elif entry["kind"] == "record":
            lost -= {entry["facts"]["key"]} if entry["facts"].get("event") == "lost_exec" else set()
        elif entry["name"] in ("sandbox.exec", "shell"):
            begun = begun | {entry["key"]} if entry["kind"] == "intent" else begun - {entry["key"]}
    if lost:
        yield f"nobody was told that {sorted(lost)} were cut off"


def _compared(calm: Story, rough: Story, name: str) -> Iterator[str]:
    before, after = calm.runs[name], rough.runs[name]
    if before.end != after.end:
        yield f"ended as {after.end} instead of {before.end}"
    outputs = [story.plain(story.runs[name].entries[-1]["content"]) for story in (calm, rough)]
    if not _same(*outputs):
        yield f"returned {outputs[1]} instead of {outputs[0]}"
    if before.end[0] == "canceled":
        return
    steps, now = _steps(calm, before), _steps(rough, after)
    if set(steps) != set(now):
        yield f"steps differ: {sorted(set(steps) ^ set(now))}"
    for key in set(steps) & set(now):
        if now[key]["result"] == "unknown" and _may_be_unknown(rough, after, now[key]):
            continue
        for field in ("effect", "name", "result", "facts", "content"):
            if not _same(steps[key][field], now[key][field]):
                yield f"step {key} has {field} {now[key][field]} instead of {steps[key][field]}"


def _steps(story: Story, run: Run) -> dict[str, Entry]:
    """The outcomes by key, but for what was stopped in flight by the end, and for questions about a doubt."""
    outcomes = [e for e in run.of("outcome") if e["result"] != "canceled" and not e["key"].endswith("!doubt")]
    counts = {entry["key"]: {name: entry.get("facts", {}).get(name) for name in COUNTS} for entry in outcomes}
    return {e["key"]: e | {"content": story.plain(_said(e)), "facts": counts[e["key"]]} for e in outcomes}


def _said(outcome: Entry) -> Json:
    """What a step came to; of memories what they say, since ids and times are those of one run."""
    if outcome["effect"] == "remember":
        return None
    return [memory["content"] for memory in outcome["content"]] if outcome["effect"] == "recall" else outcome["content"]


def _may_be_unknown(story: Story, run: Run, outcome: Entry) -> bool:
    """A step that must not be repeated, whose intent stood alone when the process was killed."""
    if outcome["effect"] == "step":
        return run.keys_outside(outcome) == f"step:{ONCE}"
    return _contract(outcome["name"]) == "at_most_once"


def _same(one: Json, other: Json) -> bool:
    """Equal, but that the other may be in doubt where the one knows."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other or (other == project.DOUBT and isinstance(one, str))


def _repeated(rough: Story) -> Iterator[str]:
    """Steps whose outcome was durable at the last kill, and that were executed after it."""
    done_later = {line.key for line in rough.log if line.life == rough.life and line.what in ("ran", "asked", "filed")}
    for run in rough.runs.values():
        leased = [number for number, entry in enumerate(run.entries) if entry.get("pid") == rough.told["pid"]]
        kept = run.entries[: leased[0]] if leased else run.entries
        for entry in kept:
            failed = run.of("retried") and entry.get("result") == "error"
            if entry["kind"] == "outcome" and not failed and run.keys_outside(entry) in done_later:
                yield f"{run.name}: step {entry['key']} was finished before the kill and executed after it"


def _effects(calm: Story, rough: Story) -> Iterator[str]:
    if any(line.what == "used" and line.text for line in rough.log):
        yield "a call went on twice with what must not be used twice"
    filed = Counter((line.key, line.name) for line in rough.log if line.what == "filed")
    for (key, name), times in filed.items():
        if times > 1 and _contract(name) != "idempotent":
            yield f"{name} was done {times} times under the key {key}"
    for what in ("filed", "ran", "asked"):
        wanted, found = _distinct(calm, what), _distinct(rough, what)
        unsure = {("send", "it"), ("stamp", ONCE)}
        if {k: n for k, n in wanted.items() if k not in unsure} != {k: n for k, n in found.items() if k not in unsure}:
            yield f"{what}: {dict(found - wanted)} too many, {dict(wanted - found)} too few"
        elif found - wanted:
            yield f"{what}: {dict(found - wanted)} too many"
        yield from _tries(calm, rough, what)


def _distinct(story: Story, what: str) -> Counter[tuple[str, str]]:
    """How many keys there were for a name and a text."""
    return Counter((name, text) for _, name, text in {line[2:5] for line in story.log if line.what == what})


def _tries(calm: Story, rough: Story, what: str) -> Iterator[str]:
    """A kill explains one more try of an effect."""
    most = Counter(line[3:5] for line in calm.log if line.what == what)
    for (key, *place), times in Counter(line[2:5] for line in rough.log if line.what == what).items():
        if times > most[place[0], place[1]] + rough.life - 1:
            yield f"{what}: {place} was tried {times} times under the key {key}"


def _money(rough: Story, most: int | None) -> Iterator[str]:
    spent, truth = rough.runs["root"].record["usage"]["micros"], sum(line.micros for line in rough.log)
    if spent < truth:
        yield f"the record says {spent} micros, {truth} were spent"
    if most is not None and spent > most:
        yield f"{spent} micros were spent, {most} were allowed"


def _contract(name: str) -> str:
    """The idempotency of a tool of the project, or of the desk."""
    remote = {tool.capability.name: tool for tool in desk.TOOLS}
    return str((remote.get(name) or getattr(project, name)).capability.idempotency)
