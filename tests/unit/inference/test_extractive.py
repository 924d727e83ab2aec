"""The built-in model decides, reads and quotes, from what the messages hold and nothing else."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest

from retinue.inference.extractive import ExtractiveModel
from retinue.inference.questions import find_alternatives, find_direction, query_words, split_question
from retinue.runs.errors import PermanentModelError
from retinue.runs.messages import Message, ModelReply, ModelRequest, ToolCall, ToolSpec

MODEL = ExtractiveModel()
SEARCH = ToolSpec(
    name="search",
    description="Find passages that mention the query.",
    input_schema={
        "type": "object",
        "properties": {"query": {"type": "string"}, "k": {"type": "integer", "default": 5}},
        "required": ["query"],
    },
)
READ = ToolSpec(
    name="read",
    description="Read one document.",
    input_schema={
        "type": "object",
        "properties": {"document_id": {"type": "string"}},
        "required": ["document_id"],
    },
)
CITATIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "document_id": {"type": "string"},
            "start": {"type": "integer"},
            "end": {"type": "integer"},
            "quote": {"type": "string"},
        },
        "required": ["document_id", "start", "end", "quote"],
    },
}
FINDING = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "citations": {"$ref": "#/$defs/Citations"},
        "confidence": {"type": "number"},
    },
    "required": ["summary", "citations", "confidence"],
    "$defs": {"Citations": CITATIONS},
}
BRIDGE = (
    "The Old Bridge is a stone arch over the Alm. It was built by Ida Kerr. "
    "Work on the bridge began in 1788 and cost 4,000 guilders. A toll was asked until 1840."
)
MILL = "The Alm Mill stands below the bridge. It ground wheat for three villages. The wheel was lost in 1911."


def passage(text: str, document: str, title: str, start: int = 0) -> dict[str, Any]:
    return {
        "document_id": document, "title": title, "start": start, "end": start + len(text), "text": text, "score": 1.0
    }  # fmt: skip


FOUND = [passage(BRIDGE, "bridge.md", "Old Bridge", 120), passage(MILL, "mill.md", "Alm Mill")]


async def ask(
    question: str, *results: Any, tools: tuple[ToolSpec, ...] = (SEARCH,), schema: Any = FINDING
) -> ModelReply:
    """The reply after searches that gave `results`, one turn for each."""
    messages = [Message(role="system", content="Quote."), Message(role="user", content=question)]
    for turn, result in enumerate(results):
        called = ToolCall(id=f"c{turn}", name="search", arguments={"query": f"query {turn}"})
        messages.append(Message(role="assistant", tool_calls=(called,)))
        messages.append(Message(role="tool", content=json.dumps(result), tool_call_id=f"c{turn}", name="search"))
    request = ModelRequest(
        model="builtin:extractive", messages=tuple(messages), tools=tools, output_schema=schema, turn=len(results)
    )
    return await MODEL.complete(request)


async def test_it_first_searches_with_the_words_that_carry_meaning() -> None:
    reply = await ask("When did the work on the Old Bridge begin?")
    assert reply.finish_reason == "tool_calls"
    assert [call.name for call in reply.tool_calls] == ["search"]
    assert reply.tool_calls[0].arguments == {"query": "work Old Bridge begin", "k": 10}
    assert json.loads(reply.tool_calls[0].raw) == reply.tool_calls[0].arguments


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"passages": p}, lambda p: {"ok": {"results": p}}])
async def test_it_answers_with_exact_spans_of_what_it_read(wrap: Any) -> None:
    reply = await ask("When did the work on the Old Bridge begin?", wrap(FOUND))
    answer = json.loads(reply.text)
    best = answer["citations"][0]
    assert best["quote"] == "Work on the bridge began in 1788 and cost 4,000 guilders."
    assert answer["summary"] == best["quote"]
    for cited in answer["citations"]:
        source = next(p for p in FOUND if p["document_id"] == cited["document_id"])
        assert source["text"][cited["start"] - source["start"] : cited["end"] - source["start"]] == cited["quote"]
    assert 1 <= len(answer["citations"]) <= 3
    assert 0 < answer["confidence"] <= 1
    assert (reply.provider, reply.model, reply.usage.micros) == ("retinue", "extractive-1", 0)


async def test_the_same_request_gives_the_same_reply() -> None:
    question = "Who built the bridge over the Alm?"
    assert (await ask(question, FOUND)).text == (await ask(question, FOUND)).text


async def test_it_searches_once_more_for_what_was_not_found_and_then_answers() -> None:
    question = "Which villages did the mill serve before the flood of the Drava?"
    first = await ask(question, [passage("Nothing of the kind.", "x.md", "X")])
    assert first.tool_calls[0].arguments is not None
    assert "Drava" in first.tool_calls[0].arguments["query"]
    second = await ask(question, [], FOUND)
    assert second.finish_reason == "stop"
    assert "three villages" in second.text


async def test_it_reads_on_when_the_best_passage_is_cut_off() -> None:
    cut = {**FOUND[0], "truncated": True}
    reply = await ask("Who built the Old Bridge?", [cut], tools=(SEARCH, READ))
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("read", {"document_id": "bridge.md"})]


async def test_nothing_found_is_said_and_not_invented() -> None:
    answer = json.loads((await ask("Who built the Old Bridge?", [], [])).text)
    assert answer == {
        "summary": "Nothing that was read answers this question.", "citations": [], "confidence": 0.0
    }  # fmt: skip


async def test_a_shortened_result_is_read_as_far_as_it_is_whole() -> None:
    whole = json.dumps(FOUND)
    cut = whole[: len(whole) - 60] + "\n[... shortened from 400 tokens ...]\n" + whole[-20:]
    messages = (
        Message(role="user", content="Who built the Old Bridge?"),
        Message(role="assistant", tool_calls=(ToolCall(id="c", name="search", arguments={"query": "x"}),)),
        Message(role="tool", content=cut, tool_call_id="c", name="search"),
    )
    request = ModelRequest(model="m", messages=messages, output_schema=FINDING)
    assert "Ida Kerr" in (await MODEL.complete(request)).text


# --- evidence in the input -------------------------------------------------------------------------------


async def test_a_writer_cites_the_findings_in_its_input() -> None:
    start = BRIDGE.index("It was built")
    quote = {"document_id": "bridge.md", "start": start, "end": start + 25, "quote": "It was built by Ida Kerr."}
    draft = {"question": "Who built the Old Bridge?", "findings": [{"summary": "x", "citations": [quote]}]}
    spelled = "Who built the Old Bridge?\n\n" + json.dumps(draft, indent=2) + "\n\nObserved so far:\n- human: hi"
    for content in (json.dumps(draft), spelled):
        reply = await ask(content, tools=())
        assert json.loads(reply.text)["citations"] == [quote]


async def test_a_planner_splits_the_question_into_parts() -> None:
    schema = {"type": "object", "properties": {"parts": {"type": "array", "items": {"type": "string"}}}}
    question = "Which did Firefox support first: the function `cos()` or the function `linear()`?"
    reply = await ask(json.dumps({"question": question}), tools=(), schema={**schema, "required": ["parts"]})
    assert json.loads(reply.text) == {
        "parts": ["when `cos()` Firefox support function", "when `linear()` Firefox support function"]
    }


def facts(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    return [passage(f"# `{name}`\n\n{text}", f"{name}.md", f"`{name}` (function)") for name, text in rows]


@pytest.mark.parametrize(
    ("question", "winner"),
    [
        ("Which did Firefox support first: `cos()` or `linear()`?", "cos()"),
        ("Of `cos()` and `linear()`, which did Firefox support last?", "linear()"),
        ("Did `linear()` or `cos()` come to Safari first?", "linear()"),
        ("Which of `cos()`, `linear()` and `hypot()` was the earliest to come to Firefox?", "hypot()"),
    ],
)
async def test_a_comparison_is_won_by_its_date(question: str, winner: str) -> None:
    found = facts(
        ("cos()", "Safari added `cos()` on 2022-03-14.\nFirefox supports `cos()` since 108, released on 2022-12-13."),
        ("linear()", "Firefox supports `linear()` since 112, released on 2023-04-11.\nSafari had it on 2021-01-01."),
        ("hypot()", "Support for `hypot()` came to Firefox on 2020-06-30."),
    )
    answer = json.loads((await ask(question, found)).text)
    assert answer["summary"] == winner
    assert {cited["document_id"] for cited in answer["citations"]} >= {"cos().md", "linear().md"}


async def test_versions_are_compared_as_numbers() -> None:
    found = facts(("a()", "Firefox supports `a()` since version 9.1."), ("b()", "Firefox got `b()` in version 10.0."))
    assert json.loads((await ask("Which came to Firefox first, `a()` or `b()`?", found)).text)["summary"] == "a()"


async def test_a_chained_question_asks_its_second_clause_with_what_the_first_told() -> None:
    question = "Which person built the Old Bridge, and in which town was she born?"
    first = await ask(question)
    assert first.tool_calls[0].arguments == {"query": "person built Old Bridge", "k": 10}
    second = await ask(question, [passage("The Old Bridge was built by Ida Kerr.", "bridge.md", "Old Bridge")])
    assert second.tool_calls[0].arguments is not None
    assert "Ida Kerr" in second.tool_calls[0].arguments["query"]


# --- schemas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "number"}, "number"),
        ({"type": "string", "enum": ["yes", "no"]}, "string enum"),
        ({"type": "object"}, "object"),
        ({"type": "string", "format": "date"}, "string"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "array of integer"),
        ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, "any"),
    ],
)
async def test_a_field_that_quotes_cannot_fill_is_refused_by_name(shape: Any, kind: str) -> None:
    schema = {"type": "object", "properties": {"verdict": shape}, "required": ["verdict"]}
    with pytest.raises(PermanentModelError, match="verdict.* of type " + kind) as caught:
        await ask("Who built it?", FOUND, schema=schema)
    assert caught.value.code == "schema_not_extractive"
    assert "another model" in str(caught.value)
    optional = {**schema, "required": []}
    assert json.loads((await ask("Who built it?", FOUND, schema=optional)).text) == {}


async def test_other_shapes_are_filled() -> None:
    properties = {
        "question": {"type": "string"},
        "documents": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
        "best": {"anyOf": [{"$ref": "#/$defs/Q"}, {"type": "null"}]},
        "note": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        "kind": {"const": "quote"},
        "short": {"type": "string", "maxLength": 10},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "$defs": {"Q": CITATIONS["items"]},
    }
    question = "Who built the Old Bridge?"
    answer = json.loads((await ask(question, FOUND, schema=schema)).text)
    assert answer["question"] == question
    assert answer["documents"] == ["bridge.md"]
    assert answer["best"]["quote"] in BRIDGE
    assert answer["note"] is None
    assert answer["kind"] == "quote"
    assert len(answer["short"]) == 10


async def test_without_a_schema_it_answers_in_text_and_streams_it() -> None:
    request = ModelRequest(model="m", messages=(Message(role="user", content="Who built it?\n\n" + json.dumps(FOUND)),))
    seen: list[str] = []
    reply = await MODEL.complete(request, seen.append)
    assert "".join(seen) == reply.text
    assert "Ida Kerr" in reply.text
    assert "bridge.md" in reply.text


async def test_no_question_is_an_error() -> None:
    with pytest.raises(PermanentModelError, match="question") as caught:
        await MODEL.complete(ModelRequest(model="m", messages=(Message(role="system", content="Hi."),)))
    assert caught.value.code == "no_question"


@pytest.mark.parametrize(
    ("question", "names", "direction"),
    [
        ("Which is older: A, B or C?", ("A", "B", "C"), "earliest"),
        ("Did Chrome or Firefox support `fetch` first?", ("Chrome", "Firefox"), "earliest"),
        ("Is Array.at newer than Array.find in Edge?", ("Array.at", "Array.find"), "latest"),
        ("Which shipped first in Safari, `Array.at()` or `:has()`?", ("Array.at()", ":has()"), "earliest"),
        ("What flows between Bingen and Bonn?", (), None),
        ("Since which version does Firefox support `structuredClone()`?", (), None),
    ],
)
def test_alternatives_are_found(question: str, names: tuple[str, ...], direction: str | None) -> None:
    assert find_alternatives(question) == names
    assert find_direction(question) == direction


def test_independent_clauses_are_parts_and_chained_ones_are_not() -> None:
    assert split_question("Who wrote the fugue, and when was the organ built?") == [
        "Who wrote the fugue", "when was the organ built"
    ]  # fmt: skip
    chained = "Who wrote the fugue, and when was his organ built?"
    assert split_question(chained) == [chained]
    assert query_words("From which version on does `:is()` work in Edge?") == "`:is()` version work Edge"


async def test_a_call_over_ten_passages_is_quick() -> None:
    found = [passage(f"{BRIDGE} {MILL} " * 3, f"d{n}.md", f"Title {n}") for n in range(10)]
    await ask("When did the work on the Old Bridge begin?", found)
    times = []
    for _ in range(5):
        started = process_time()
        await ask("When did the work on the Old Bridge begin?", found)
        times.append(process_time() - started)
    assert min(times) < 0.05


@pytest.mark.parametrize(
    "word", ["A ", "`", "a or ", ", b or c: ", "Which and which ", "1-", "((", "\n- ", "{", "It. "]
)
async def test_endless_questions_end(word: str) -> None:
    started = process_time()
    await ask(word * 200_000, FOUND)
    assert process_time() - started < 5
