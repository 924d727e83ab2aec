"""Measures decisions of the gate against a floor in the same run, and writes them into benchmarks/results.json.

    python benchmarks/decisions.py [--quick]

50 and 500 rules about one capability's stage. `general` rules name no tool, so that each request is judged by all of
them; `pinned` ones name one of ten tools each, so that a request meets a tenth. New requests (each has arguments that
were not seen before) are judged by the engine; known ones come from the cache. The floor is the same rules as Python
closures over a dictionary, a loop that stops at the first denial; its answers are compared with the gate's. Times are
those that the thread was on a core, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.table import merged

from retinue.policy.gate import CedarGate
from retinue.policy.rules import read_rules
from retinue.runs.gate import GateRequest

HERE = Path(__file__).parent
ROUNDS = 3
REQUESTS = 4_000
KNOWN = 100
"""Requests that come again and again, where decisions are shared."""
TOOLS = [f"tool{number}" for number in range(10)]
AGENTS = [f"agent{number}" for number in range(20)]
Result = dict[str, Any]
Closure = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class Set:
    """Rules in Cedar, and the same as closures: what permits, and what forbids."""

    gate: CedarGate
    permits: list[Closure]
    forbids: list[Closure]

    def floor(self, request: dict[str, Any]) -> bool:
        """Whether the closures allow a request."""
        for forbid in self.forbids:
            if forbid(request):
                return False
        return any(permit(request) for permit in self.permits)


def rules(count: int, pinned: bool) -> Set:
    """So many rules: a permit in ten, else forbids of three kinds in turn."""
    texts, permits, forbids = [], list[Closure](), list[Closure]()
    for number in range(count):
        tool = TOOLS[number // 10 % len(TOOLS)] if pinned else None
        effect, condition, closure = _rule(number)
        scope = f'resource == Capability::"{tool}"' if tool else "resource"
        texts.append(
            f'@id("r{number}") @reason("rule {number}")\n'
            f'{effect} (principal, action == Action::"capability", {scope})\nwhen {{ {condition} }};'
        )
        held = _pinned(tool, closure) if tool else closure
        (permits if effect == "permit" else forbids).append(held)
    return Set(CedarGate(read_rules({"bench.cedar": "\n".join(texts)})), permits, forbids)


def _pinned(tool: str, closure: Closure) -> Closure:
    return lambda request: bool(request["resource"] == tool and closure(request))


def _rule(number: int) -> tuple[str, str, Closure]:
    """Effect, condition and closure of the rule of a number."""
    if number % 10 == 0:
        return "permit", 'context.side_effect == "read"', lambda request: bool(request["side_effect"] == "read")
    if number % 3 == 0:
        agent = AGENTS[number % len(AGENTS)] + "-blocked"
        return "forbid", f'context.agent == "{agent}"', lambda request: bool(request["agent"] == agent)
    if number % 3 == 1:
        most = 10_000 + number
        read = "context.arguments.numbers"
        condition = f'{read}.hasTag("amount") && {read}.getTag("amount") > {most}'
        return "forbid", condition, lambda request: bool(request["arguments"].get("amount", 0) > most)
    word = f"/srv/{number}/"
    read = "context.arguments.paths"
    condition = f'{read}.hasTag("path") && {read}.getTag("path") like "{word}*"'
    return "forbid", condition, lambda request: str(request["arguments"].get("path", "")).startswith(word)


def requests(count: int, first: int) -> list[GateRequest]:
    """So many different requests; one in eight is denied by its amount or path."""
    return [_request(first + number) for number in range(count)]


def _request(number: int) -> GateRequest:
    amount = 20_000 + number if number % 16 == 0 else number % 9_000
    path = f"/srv/2/{number}" if number % 16 == 8 else f"/home/{number}"
    return GateRequest(
        stage="capability",
        run_id="run",
        tenant="acme",
        principal="ana",
        agent=AGENTS[number % len(AGENTS)],
        route="api",
        resource=TOOLS[number % len(TOOLS)],
        digest="d",
        arguments={"amount": amount, "path": path, "note": f"request {number}"},
    )


def timed(judge: Callable[[Any], object], asked: Sequence[object]) -> tuple[float, float]:
    """Decisions a second of the first half of the requests, and the 99th percentile in µs of the second."""
    clock, half = time.thread_time_ns, len(asked) // 2
    began = clock()
    for request in asked[:half]:
        judge(request)
    rate = half / (clock() - began) * 1e9
    took = []
    for request in asked[half:]:
        before = clock()
        judge(request)
        took.append(clock() - before)
    return rate, sorted(took)[len(took) * 99 // 100] / 1000


def check(made: Set, asked: Sequence[GateRequest]) -> None:
    """The gate and its floor say the same, and both deny something."""
    said = [made.gate.decide(request).outcome == "allow" for request in asked]
    if said != [made.floor(request.__dict__) for request in asked]:
        raise SystemExit("the gate and its floor do not agree: the figures would compare nothing")
    if not 0 < sum(said) < len(said):
        raise SystemExit("all requests have the same answer: the figures would say nothing")


def measure(rounds: int, count: int) -> list[Result]:
    """All figures: medians of the rounds, floor and gate in turn."""
    figures: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        for size in (50, 500):
            for shape in ("general", "pinned"):
                made = rules(size, shape == "pinned")
                fresh = requests(count, (number + 1) * 1_000_000)
                check(made, fresh[:500])
                known = requests(KNOWN, 0) * (count // KNOWN)
                for request in known[:KNOWN]:
                    made.gate.decide(request)
                plain = [request.__dict__ for request in fresh]
                gc.collect()
                name = f"policy_{size}_{shape}"
                figures.setdefault(f"{name}_floor", []).append(timed(made.floor, plain))
                figures.setdefault(f"{name}_new", []).append(timed(made.gate.decide, fresh[500:]))
                figures.setdefault(f"{name}_known", []).append(timed(made.gate.decide, known))
    return [line for name, found in figures.items() for line in lines(name, found, figures)]


def lines(name: str, found: list[tuple[float, float]], figures: dict[str, list[tuple[float, float]]]) -> list[Result]:
    """Decisions a second and p99 of a figure, each beside its floor."""
    floor = name.rpartition("_")[0] + "_floor"
    made = []
    for place, (suffix, unit) in enumerate((("", "1/s"), ("_p99", "µs"))):
        value = statistics.median(each[place] for each in found)
        against = statistics.median(each[place] for each in figures[floor])
        is_floor = name == floor
        made.append(
            {
                "name": name + suffix,
                "value": round(value, 1),
                "unit": unit,
                "against": None if is_floor else floor + suffix,
                "ratio": None if is_floor else round(value / against, 3),
            }
        )
    return made


def main() -> None:
    """Measure, print a table, write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of fewer requests, nothing is written")
    quick = parser.parse_args().quick
    results = measure(1, 1_000) if quick else measure(ROUNDS, REQUESTS)
    path = HERE / "results.json"
    if not quick:
        path.write_text(json.dumps(merged(json.loads(path.read_text()), results), indent=1, ensure_ascii=False) + "\n")
    for line in results:
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.3f} of {line['against']}"
        print(f"{line['name']:28} {line['value']:>12,} {line['unit']:4} {ratio}")


if __name__ == "__main__":
    main()
