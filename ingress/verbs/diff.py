"""`retinue diff`: two runs side by side. Reads the store; needs no runtime."""

from __future__ import annotations

from collections.abc import Iterator

import click

from retinue.ingress.alignment import Comparison, Pair, Side, Step, is_same
from retinue.ingress.controls import open_controls
from retinue.ingress.diffing import ChildPair, Difference
from retinue.ingress.exits import Exit
from retinue.ingress.render import cut, duration, money, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.contracts import Json

_SHOWN = 100
_WIDTH = 98


@verb("diff")
@click.argument("run")
@click.argument("other", metavar="RUN")
@click.option("--children", is_flag=True, help="Their children too, by group and index.")
async def diff_command(terminal: Terminal, run: str, other: str, children: bool) -> Exit:
    """Lay two runs side by side: which steps are the same, which changed and in what, which only one of them has,
    how they ended, what they cost. `-` and `<` are of the first, `+` and `>` of the second."""
    async with open_controls(terminal.settings()) as client:
        found = await client.diff(run, other, children)
    terminal.give(difference_facts(found), "\n".join(cut(line, _WIDTH) for line in _lines(found)))
    return Exit.done


def difference_facts(found: Difference) -> Json:
    """A difference as JSON, with the counts and deltas of each pair of runs beside."""
    children = [
        {
            "group": pair.group,
            "index": pair.index,
            "run_ids": pair.run_ids,
            "shared": pair.shared,
            "difference": difference_facts(pair.difference) if pair.difference else None,
        }
        for pair in found.children
    ]
    compared = found.comparison
    facts = {**compared.model_dump(mode="json"), **compared.facts}
    return {**facts, "children": children, "children_left_out": found.left_out}


def _lines(found: Difference) -> Iterator[str]:
    compared = found.comparison
    yield from _ends(compared)
    facts = compared.facts
    yield (
        f"steps  {facts['same']} the same, {facts['changed']} changed, {facts['only_one']} only in the first, "
        f"{facts['only_other']} only in the second"
    )
    differing = [pair for pair in compared.pairs if not is_same(pair)]
    for pair in differing[:_SHOWN]:
        yield from _pair(pair)
    if len(differing) > _SHOWN:
        yield f"  … {len(differing) - _SHOWN} more; --json has all"
    for name, text in (("input", compared.input), ("output", compared.output)):
        yield f"{name}  " + ("differs:" if text else "the same")
        yield from (f"  {line}" for line in text)
    for child in found.children:
        yield from _child(child)
    if found.left_out:
        yield f"… {found.left_out} more children were not compared"


def _ends(compared: Comparison) -> Iterator[str]:
    one, other, facts = compared.one, compared.other, compared.facts
    yield f"< {_side(one)}"
    yield f"> {_side(other)}"
    tokens = f"tokens {one.usage.tokens} → {other.usage.tokens} ({facts['tokens']:+d})"
    change = ("+" if facts["micros"] >= 0 else "-") + money(abs(facts["micros"]))
    yield f"cost   {money(one.usage.micros)} → {money(other.usage.micros)} ({change}), {tokens}"


def _side(side: Side) -> str:
    status = side.status + (f" ({side.reason})" if side.reason else "")
    took = f", {duration(side.seconds)}" if side.seconds is not None else ""
    why = f": {side.error}" if side.error else ""
    return f"{side.target} {short(side.run_id)}, version {side.version}: {status}{took}{why}"


def _pair(pair: Pair) -> Iterator[str]:
    if pair.other is None and pair.one is not None:
        yield f"  - {_step(pair.one)}"
    elif pair.one is None and pair.other is not None:
        yield f"  + {_step(pair.other)}"
    elif pair.one is not None and pair.other is not None:
        yield f"  ~ {_step(pair.one)}: {', '.join(pair.changed)}"
        lines = list(_changes(pair.one, pair.other))
        for name, text in (("arguments", pair.arguments), ("value", pair.value)):
            lines += [f"{name}:", *(f"  {line}" for line in text)] if text else []
        yield from (f"      {line}" for line in lines)


def _step(step: Step) -> str:
    return f"{step.effect} {step.name} ({step.key})"


def _changes(one: Step, other: Step) -> Iterator[str]:
    """The parts of a step that one line can tell."""
    if one.key != other.key:
        yield f"matched with {other.key}"
    rows = {
        "name": (one.name, other.name),
        "result": (one.result or "open", other.result or "open"),
        "error": (one.error or "none", other.error or "none"),
        "tokens": (str(one.usage.tokens), str(other.usage.tokens)),
        "cost": (money(one.usage.micros), money(other.usage.micros)),
        "tries": (str(one.tries), str(other.tries)),
    }
    yield from (f"{name} {ours} → {theirs}" for name, (ours, theirs) in rows.items() if ours != theirs)
    if one.micros is not None and other.micros is not None:
        yield f"took {duration(one.micros / 1e6)} → {duration(other.micros / 1e6)}"


def _child(child: ChildPair) -> Iterator[str]:
    place = f"child {child.index} of {child.group}"
    if child.difference is None:
        which = "the same run in both" if child.shared else "only in the " + ("first" if child.run_ids[0] else "second")
        yield f"{place}: {which}"
        return
    yield f"{place}:"
    yield from (f"  {line}" for line in _lines(child.difference))
