"""Script files are validated line by line, and replayed by turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinue.inference.scripted import ScriptedModel
from retinue.runs.errors import ConfigError, PermanentModelError, TransientModelError
from retinue.runs.messages import Message, ModelReply, ModelRequest


def write(folder: Path, *lines: Any) -> ScriptedModel:
    path = folder / "script.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return ScriptedModel(path)


def asking(text: str = "hello", **fields: Any) -> ModelRequest:
    known = {"model": "scripted:s", "messages": (Message(role="user", content=text),), "input_text": text}
    return ModelRequest(**{**known, **fields})


async def ask(model: ScriptedModel, text: str = "hello", **fields: Any) -> ModelReply:
    return await model.complete(asking(text, **fields))


def always(answer: str) -> dict[str, Any]:
    return {"decisions": [{"answer": answer}]}


async def test_the_turn_selects_the_decision(tmp_path: Path) -> None:
    calls = [{"name": "search", "arguments": {"query": "hat"}}, {"name": "bad", "raw": "{oops"}]
    model = write(tmp_path, {"match": {}, "decisions": [{"tool_calls": calls}, {"answer": {"a": 1}}]})
    first, second = await ask(model, turn=0), await ask(model, turn=1)
    assert [(call.name, call.arguments) for call in first.tool_calls] == [("search", {"query": "hat"}), ("bad", None)]
    assert first.tool_calls[1].raw == "{oops"
    assert first.finish_reason == "tool_calls"
    assert json.loads(second.text) == {"a": 1}
    with pytest.raises(PermanentModelError, match=r"script.jsonl:1: it holds 2 decisions, but model call 3") as caught:
        await ask(model, turn=2)
    assert caught.value.code == "script_exhausted"


async def test_control_decisions_are_calls_of_the_tools_that_stand_for_them(tmp_path: Path) -> None:
    model = write(
        tmp_path,
        {"decisions": [{"ask_human": "Which?"}, {"handoff": "writer", "artifact": {"x": 1}}, {"stop": "no way"}]},
    )
    made = [(await ask(model, turn=turn)).tool_calls[0] for turn in range(3)]
    assert [(call.name, call.arguments) for call in made] == [
        ("ask_human", {"question": "Which?"}),
        ("hand_off", {"agent": "writer", "artifact": {"x": 1}}),
        ("stop", {"reason": "no way"}),
    ]


async def test_the_closest_match_wins(tmp_path: Path) -> None:
    model = write(
        tmp_path,
        {"match": {}, **always("default")},
        {"match": {"input": "red hat"}, **always("part")},
        {"match": {"input": "a red hat"}, **always("exact")},
        {"match": {"input_id": "q7"}, **always("id")},
        {"match": {"agent": "writer"}, **always("writer")},
    )
    assert (await ask(model, "other")).text == "default"
    assert (await ask(model, "my red hat is old")).text == "part"
    assert (await ask(model, "a red hat")).text == "exact"
    assert (await ask(model, "a red hat", input_id="q7")).text == "id"
    assert (await ask(model, "a red hat", input_id="q7", agent="writer")).text == "writer"


async def test_no_match_says_who_asked(tmp_path: Path) -> None:
    model = write(tmp_path, {"match": {"input_id": "q1"}, **always("x")})
    with pytest.raises(PermanentModelError, match=r"no line matches agent '', input id 'q2'") as caught:
        await ask(model, input_id="q2")
    assert caught.value.code == "script_missing"


async def test_usage_and_money_are_as_written(tmp_path: Path) -> None:
    usage = {"input_tokens": 100, "output_tokens": 5, "usd": 0.0021}
    model = write(tmp_path, {"decisions": [{"answer": "x", "usage": usage}, {"answer": "y" * 40}]})
    profile, reply = model.profile(asking()), await ask(model)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.micros) == (100, 5, 2100)
    assert (profile.free, profile.max_micros, profile.input_tokens) == (False, 2100, 100)
    second = await ask(model, turn=1)
    assert (second.usage.output_tokens, second.usage.micros) == (10, 0)


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ({"kind": "transient", "retry_after": 3}, TransientModelError, "scripted"),
        ({"kind": "timeout"}, TransientModelError, "timeout"),
        ({"kind": "permanent"}, PermanentModelError, "scripted"),
        ({"kind": "garbage"}, PermanentModelError, "bad_reply"),
    ],
)
async def test_faults_strike_always_or_the_first_times(tmp_path: Path, fault: Any, error: Any, code: str) -> None:
    never = write(tmp_path, {"decisions": [{"fault": fault}]})
    for _ in range(3):
        with pytest.raises(error) as caught:
            await ask(never)
        assert caught.value.code == code
    twice = write(tmp_path, {"decisions": [{"answer": "at last", "fault": {**fault, "times": 2}}]})
    for run in ("r1", "r2"):
        for _ in range(2):
            with pytest.raises(error) as caught:
                await ask(twice, run_id=run)
        assert (await ask(twice, run_id=run)).text == "at last"
    if "retry_after" in fault:
        assert caught.value.retry_after == 3


async def test_latency_is_waited_within_the_time_limit(tmp_path: Path) -> None:
    model = write(tmp_path, {"decisions": [{"answer": "x", "latency_ms": 20}, {"answer": "x", "latency_ms": 60_000}]})
    assert (await ask(model)).latency_ms >= 19
    with pytest.raises(TransientModelError, match=r"timeout of 0\.05 s") as caught:
        await ask(model, turn=1, timeout=0.05)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{nope", r"script.jsonl:2: not a JSON object"),
        ("[1]", r"script.jsonl:2: expected"),
        ({"decisions": [{"answer": "half \ud800"}]}, r"script.jsonl:2: not a JSON object in UTF-8"),
        ({"decisions": []}, r"script.jsonl:2: decisions: "),
        ({"decisions": [{}]}, r"script.jsonl:2: decisions.0: .*exactly one of tool_calls"),
        ({"decisions": [{"answer": "x", "stop": "y"}]}, r"found answer and stop"),
        ({"decisions": [{"answer": "x", "artifact": {}}]}, r"artifact goes with handoff"),
        ({"decisions": [{"anwser": "x"}]}, r"script.jsonl:2: decisions.0.anwser: .*docs/models.md"),
        ({"decisions": [{"tool_calls": [{"arguments": {}}]}]}, r"decisions.0.tool_calls.0.name"),
        ({"decisions": [{"answer": "x", "latency_ms": -1}]}, r"decisions.0.latency_ms: .*-1"),
        ({"decisions": [{"answer": "x", "usage": {"usd": "much"}}]}, r"decisions.0.usage.usd: .*much"),
        ({"match": {"input": "a", "input_id": "b"}, "decisions": [{"answer": "x"}]}, r"not both"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        write(tmp_path, always("fine"), line)


def test_a_missing_empty_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the script"):
        ScriptedModel(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="empty"):
        write(tmp_path, "")
    (tmp_path / "script.jsonl").write_bytes(b'{"decisions": [{"answer": "\xff"}]}')
    with pytest.raises(ConfigError, match=r"script.jsonl:1: not a JSON object in UTF-8"):
        ScriptedModel(tmp_path / "script.jsonl")
