"""Output discipline: each stage refuses in its own words, confidence is what checks came to, nothing is mended."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from tests.doubles.processes import ROOT
from tests.doubles.worlds import calls, ended
from tests.unit.runs.conftest import Make

from retinue.inference.dialect import read_call
from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.decisions import Invalid, decide
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput
from retinue.runs.messages import ModelReply
from retinue.runs.outputs import Check, Terms, confidence_of, validate, validate_value
from retinue.runs.patterns.vote import vote
from retinue.runs.rules import rule
from retinue.sessions.native import tool


def cheap(offer: Offer) -> str | None:
    """A business rule."""
    return f"{offer.price} is more than 100" if offer.price > 100 else None


class Offer(BaseModel):
    """A typed answer with a rule of its own."""

    price: int
    quote: str = ""
    output_rules: ClassVar = (cheap,)


@rule(severity="warning")
def polite(offer: Offer) -> str | None:
    """A rule that refuses nothing."""
    return None if "please" in offer.quote else "it does not say please"


refunded: list[tuple[str, int]] = []


@tool(side_effect="write", idempotency="idempotent")
def refund(order: str, cents: int, *, key: str) -> str:
    """Refund an order."""
    refunded.append((order, cents))
    return f"refunded {order}"


@rule(tool=refund)
def small(arguments: dict[str, Any]) -> str | None:
    """A rule about the arguments of a write."""
    return "refund at most 50.00 at once" if arguments["cents"] > 5_000 else None


@pytest.fixture(autouse=True)
def fresh() -> None:
    refunded.clear()


@pytest.mark.promise("F5")
@pytest.mark.parametrize(
    ("text", "stage", "problem"),
    [
        ("no json", "parse", "the answer is not JSON"),
        ('{"price": 3', "parse", "the answer is not JSON"),
        ('{"price": "much"}', "schema", "price: "),
        ('{"price": 101}', "rules", "101 is more than 100"),
    ],
)
def test_a_refused_answer_names_its_stage_and_goes_no_further(text: str, stage: str, problem: str) -> None:
    checked = validate(text, Offer)
    assert not checked.ok and checked.errors[0].startswith(problem)
    assert checked.stages[-1] == stage and checked.facts["stage"] == stage


@pytest.mark.promise("F5")
def test_a_good_answer_passes_every_stage_in_order() -> None:
    checked = validate('```json\n{"price": 3, "quote": "seen"}\n```', Offer, ("as seen on tv",), (polite,))
    assert checked.ok and checked.value == {"price": 3, "quote": "seen"}
    assert checked.stages == ("raw", "parse", "schema", "rules", "confidence", "result")
    assert checked.warnings == ("polite: it does not say please",)
    assert checked.facts["checks"] == {"quotes": [1, 1], "rules": [1, 2]} and checked.facts["rules"] == ["polite"]
    assert checked.confidence == 0.5 and [check.name for check in checked.weak(0.8)] == ["rules"]


@pytest.mark.promise("F5")
def test_confidence_is_the_weakest_check_that_ran_and_nothing_that_the_answer_says() -> None:
    class Sure(BaseModel):
        confidence: float

    assert validate('{"confidence": 1.0}', Sure).confidence is None
    assert validate("I am 100 % sure", None).confidence is None
    assert confidence_of((Check("quotes", 1, 3), Check("agreement", 3, 4))) == 0.333
    assert validate_value({"price": 3}, Terms(Offer), (Check("agreement", 3, 4),)).confidence == 0.75


def test_what_is_no_rule_is_refused_where_it_is_written() -> None:
    def late(answer: Any) -> str | None:
        return str(random.random())

    def two(answer: Any, more: Any) -> str | None:
        return None

    for wrong, said in ((lambda answer: None, "needs a name"), (late, "pure function"), (two, "one parameter")):
        with pytest.raises(InvalidInput, match=said):
            agent("a", "b", rules=[wrong])
    with pytest.raises(InvalidInput, match="two rules are named 'cheap'"):
        agent("a", "b", rules=[cheap, cheap])
    with pytest.raises(InvalidInput, match="severity is 'fatal'"):
        rule(cheap, severity="fatal")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="min_confidence is 80"):
        agent("a", "b", min_confidence=80)
    broken = rule(lambda answer: True, name="broken")  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidInput, match="'broken' returned True"):
        validate("x", None, rules=(broken,))  # type: ignore[arg-type]


def test_rules_are_part_of_a_version_and_an_agent_without_any_keeps_its_own() -> None:
    plain, ruled = agent("a", "b"), agent("a", "b", rules=[cheap])
    assert agent("a", "b", rules=[], min_confidence=None).version == plain.version
    assert len({plain.version, ruled.version, agent("a", "b", min_confidence=0.5).version}) == 3


SAME = """
from retinue.runs.definitions import agent
def rule(answer):
    return next((word for word in answer.split() if word in {"no", "never", "nobody"}), None)
print(agent("a", "b", rules=[rule]).version)
"""


def test_a_rule_gives_the_same_version_in_every_process() -> None:
    said = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run([sys.executable, "-c", SAME], env=environment, capture_output=True, text=True, timeout=60)
        said.add(done.stdout + done.stderr)
    assert len(said) == 1 and said.pop().startswith("~")


@pytest.mark.promise("F5")
async def test_a_rejection_goes_back_with_the_reason_a_bounded_number_of_times(make_on_each: Make) -> None:
    seller = agent("seller", "Sell.", output=Offer, corrections=1)
    world = await make_on_each(seller)
    world.decide({"answer": {"price": 500}}, {"answer": {"price": 20}})
    result = await world.run(seller, "an offer")
    assert ended(result) == (Status.completed, "success") and result.value == {"price": 20, "quote": ""}
    told = [entry.content["messages"][-1]["content"] for entry in await world.intents(result.run_id) if entry.content]
    assert "The answer was refused: 500 is more than 100. Answer again." in told[-1]
    world.decide({"answer": {"price": 500}}, {"answer": {"price": 600}})
    assert ended(await world.run(seller, "an offer")) == (Status.failed, "output_rejected")
    records = [entry.facts for entry in await world.entries(result.run_id) if entry.kind == "record"]
    assert [facts["stage"] for facts in records if facts.get("what") == "output"] == ["rules", "result"]


@pytest.mark.promise("F5")
async def test_a_rule_about_arguments_stops_the_call_and_tells_the_model(make: Make) -> None:
    desk = agent("desk", "Refund.", tools=[refund], rules=[small])
    world = await make(desk)
    world.decide(
        calls("refund", order="A1", cents=900_000), calls("refund", order="A1", cents=4_000), {"answer": "done"}
    )
    result = await world.run(desk, "refund A1")
    assert ended(result) == (Status.completed, "success") and refunded == [("A1", 4_000)]
    checks = [entry.facts for entry in await world.entries(result.run_id) if entry.kind == "record"]
    [refused] = [facts for facts in checks if facts.get("what") == "arguments of refund"]
    assert refused["errors"] == ["refund at most 50.00 at once"] and refused["rules"] == ["small"]


@workflow(rules=[rule(lambda total: "no debts" if total < 0 else None, name="no debts")], min_confidence=0.7)
async def add(ctx: Context, given: dict[str, Any]) -> int:
    """A workflow that says how sure it is of its sum."""
    ctx.check("samples", given["good"], 4)
    return sum(given["numbers"])


@workflow
async def coin(ctx: Context, number: int) -> str:
    """The second one of three says otherwise."""
    return "tails" if number == 1 else "heads"


jury = vote("jury", coin, count=3, need=3, vary=lambda given, index: index, min_confidence=0.9)


@pytest.mark.promise("F5")
async def test_what_a_workflow_returns_is_checked_too(make_on_each: Make) -> None:
    world = await make_on_each(add)
    sure = await world.run(add, {"numbers": [1, 2], "good": 3})
    assert sure.value == 3 and sure.facts["confidence"] == 0.75
    refused = await world.run(add, {"numbers": [1, -2], "good": 4})
    assert ended(refused) == (Status.failed, "output_rejected")
    assert refused.error is not None and "no debts" in refused.error.message
    run_id = await world.submit(add, {"numbers": [1, 2], "good": 1})
    assert "confidence 0.25, below 0.7: samples 1/4" in (await world.asked(run_id)).prompt
    await world.answer(run_id, {"edit": "four"})
    assert "the edited answer does not fit" in (await world.asked(run_id)).prompt
    await world.answer(run_id, {"edit": 4})
    assert (await world.finish(run_id)).value == 4
    run_id = await world.submit(add, {"numbers": [1, 2], "good": 1})
    await world.answer(run_id, {"reject": "wrong"})
    assert ended(await world.finish(run_id)) == (Status.failed, "output_rejected")


@pytest.mark.promise("F5")
async def test_the_agreement_of_samples_is_a_check(make: Make) -> None:
    world = await make(jury)
    run_id = await world.submit(jury, "toss")
    request = await world.asked(run_id)
    assert "agreement 2/3" in request.prompt and request.facts["weak"] == ["agreement"]
    await world.answer(run_id, "approve")
    done = await world.finish(run_id)
    assert done.value["votes"] == {"heads": 2, "tails": 1} and done.facts["reviewed"] == "approved"


MENDABLE = (
    {"order": "A1", "cents": "4000"},
    {"order": 17, "cents": 4_000},
    {"order": "A1", "cents": 4_000.0},
    {"order": "A1", "cents": True},
    {"order": "A1", "cents": 4_000, "extra": None},
    {"Order": "A1", "cents": 4_000},
    {"order": "A1"},
    {"order": ["A1"], "cents": 4_000},
    {"order": None, "cents": 4_000},
)


@pytest.mark.promise("F5")
@pytest.mark.parametrize("arguments", MENDABLE, ids=repr)
async def test_arguments_of_a_write_are_never_mended_only_refused(make: Make, arguments: dict[str, Any]) -> None:
    desk = agent("desk", "Refund.", tools=[refund])
    world = await make(desk)
    world.decide(calls("refund", **arguments), {"answer": "could not"})
    result = await world.run(desk, "refund A1")
    assert ended(result) == (Status.completed, "success") and refunded == []
    [outcome] = [each for each in await world.outcomes(result.run_id) if each.effect == "call"]
    assert outcome.error is not None and outcome.error.code == "invalid_arguments"


NO_OBJECT = (
    '{"order": "A1", "cents": 4000',
    "{'order': 'A1', 'cents': 4000}",
    '{"order": "A1", "cents": 4000,}',
    '{"order": "A1", "cents": 4000} trailing',
    '```json\n{"order": "A1", "cents": 4000}\n```',
    '{"order": "A1", "cents": 1, "cents": 900000}',
    '{"order": "A1", "cents": NaN}',
    '[{"order": "A1", "cents": 4000}]',
    '"A1"',
)


@pytest.mark.promise("F5")
@pytest.mark.parametrize("raw", NO_OBJECT)
def test_arguments_that_are_no_json_object_are_no_decision(raw: str) -> None:
    call = read_call("c1", "refund", raw, 0)
    decision = decide(ModelReply(text="", tool_calls=(call,), finish_reason="tool_calls"), (refund.capability.spec,))
    assert isinstance(decision, Invalid) and "are not a JSON object" in decision.problem
