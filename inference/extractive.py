"""The built-in offline model, `builtin:extractive`: it searches and answers with quotes, by words alone.

Owns the decision policy: search, perhaps search again or read on, then answer. Like any model it sees only
the request's messages, tools and output schema; it has no access to documents, runs or gold answers. It is
deterministic, costs nothing, and refuses schemas that quotes cannot fill.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from time import perf_counter

from retinue.inference.comparing import judge
from retinue.inference.evidence import Passage, Task, read_task
from retinue.inference.filling import Material, fill_schema
from retinue.inference.prices import estimate_request, estimate_text
from retinue.inference.questions import (
    carry_names,
    find_alternatives,
    find_direction,
    find_named,
    is_chained,
    query_words,
    split_clauses,
    split_question,
)
from retinue.inference.quotes import LIMIT, Quote, measure_confidence, pick_quotes
from retinue.inference.toolbox import MOST, Tool, find_reader, find_search
from retinue.runs.contracts import Json, Usage
from retinue.runs.errors import PermanentModelError
from retinue.runs.lexical import content_terms
from retinue.runs.messages import ModelProfile, ModelReply, ModelRequest, OnDelta, ToolCall

PROVIDER = "retinue"
NAME = "extractive-1"
MOST_CALLS = 4
"""Tool calls made for one question, all turns together."""
FIRST_CALLS = 3
"""Searches of the first turn: one, or one for each alternative of a comparison."""
ENOUGH = 0.5
"""Share of the question's terms that the passages must hold, or it searches once more for the others."""
NOTHING = "Nothing that was read answers this question."


class ExtractiveModel:
    """A ModelPort without endpoint. Usage is an estimate of the text read and written."""

    def profile(self, request: ModelRequest) -> ModelProfile:
        """Free, whatever the request."""
        return ModelProfile(
            provider=PROVIDER, name=NAME, free=True, max_micros=0, input_tokens=estimate_request(request)
        )

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """The next tool calls, or the answer. PermanentModelError("schema_not_extractive") when quotes
        cannot fill the output schema, ("no_question") when no message asks anything."""
        started = perf_counter()
        task = read_task(request.messages)
        if not task.question:
            raise PermanentModelError(
                "no user message holds a question; builtin:extractive needs one", code="no_question"
            )
        calls = decide_calls(task, request)
        text = "" if calls else write_answer(task, request)
        first = (perf_counter() - started) * 1000 if text and on_delta is not None else None
        if on_delta is not None:
            for piece in _lines(text):
                on_delta(piece)
        written = text or "".join(call.name + call.raw for call in calls)
        return ModelReply(
            text=text,
            tool_calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            usage=Usage(input_tokens=estimate_request(request), output_tokens=estimate_text(written)),
            model=NAME,
            provider=PROVIDER,
            raw={"model": NAME, "text": text, "tool_calls": [_told(call) for call in calls]},
            latency_ms=(perf_counter() - started) * 1000,
            first_token_ms=first,
        )

    async def close(self) -> None:
        """Nothing is open."""


def decide_calls(task: Task, request: ModelRequest) -> tuple[ToolCall, ...]:
    """The calls to make now: none when there is enough to answer, or nothing more to try."""
    search = find_search(request.tools)
    if search is None:
        return ()
    made = [call for call in task.calls if call.name == search.name]
    if not made:
        queries = [] if task.passages else _first_queries(task.question)
        return _calls(search, queries[:FIRST_CALLS], request)
    if len(task.calls) >= MOST_CALLS:
        return ()
    asked = {str((call.arguments or {}).get(search.argument, "")) for call in made}
    query = _next_query(task, len(made))
    if query and query not in asked:
        return _calls(search, [query], request)
    reader = find_reader(request.tools)
    if reader is None or any(call.name == reader.name for call in task.calls):
        return ()
    cut = _find_truncated(task)
    return _calls(reader, [cut.document], request) if cut is not None else ()


def write_answer(task: Task, request: ModelRequest) -> str:
    """The answer as text, or as the JSON of the output schema."""
    material = _gather(task)
    if request.output_schema is None:
        return _plain(material)
    return json.dumps(fill_schema(request.output_schema, material), ensure_ascii=False)


def _gather(task: Task) -> Material:
    names, direction = find_alternatives(task.question), find_direction(task.question)
    verdict = judge(task.question, names, direction, task.passages) if names and direction else None
    parts = split_question(task.question)
    if verdict:
        quotes, answer = list(verdict.quotes), verdict.winner
    elif names:
        quotes = _quote_each(task, parts)
        answer = quotes[0].text if quotes else NOTHING
    else:
        quotes = _quote_clauses(task)
        answer = " ".join(quote.text for quote in quotes[: len(split_clauses(task.question))]) or NOTHING
    return Material(
        question=task.question,
        answer=answer,
        quotes=quotes,
        parts=[quote.text for quote in quotes] if task.passages else parts,
        confidence=measure_confidence(quotes),
    )


def _quote_each(task: Task, parts: list[str]) -> list[Quote]:
    """The best quote for the whole question, then the best one for each of its parts."""
    quotes = [quote for asked in (task.question, *parts) for quote in _pick(asked, task.passages, limit=1)]
    return _once(quotes)


def _quote_clauses(task: Task) -> list[Quote]:
    """The best quote for each clause in turn, then the best ones for the whole question.

    A clause that refers back is asked with the names that the quote before it tells: a second hop.
    """
    clauses = split_clauses(task.question)
    quotes: list[Quote] = []
    for clause in clauses if len(clauses) > 1 else []:
        quotes += _pick(_resolve(clause, quotes, task), task.passages, limit=1)
    return _once([*quotes, *_pick(task.question, task.passages)])[: max(LIMIT, len(clauses))]


def _resolve(clause: str, quotes: list[Quote], task: Task) -> str:
    return carry_names(quotes[-1].text, clause, task.question) if quotes else clause


def _pick(asked: str, passages: Sequence[Passage], limit: int = LIMIT) -> list[Quote]:
    """The best quotes from the passages that hold what the question names in quotes or backticks, if any do."""
    names = find_named(asked)
    about = [p for p in passages if any(name in p.title or name in p.text for name in names)]
    return pick_quotes(asked, about or passages, limit)


def _once(quotes: list[Quote]) -> list[Quote]:
    places: dict[tuple[str, int, int], Quote] = {}
    for quote in quotes:
        places.setdefault((quote.document, quote.start, quote.end), quote)
    return list(places.values())


def _plain(material: Material) -> str:
    places = [f"“{quote.text}” ({quote.document}, {quote.start}-{quote.end})" for quote in material.quotes]
    quoted = material.quotes and material.answer == material.quotes[0].text
    return "\n".join(places if quoted else [material.answer, *places])


def _first_queries(question: str) -> list[str]:
    clauses = split_clauses(question)
    parts = clauses[:1] if is_chained(clauses) else split_question(question)
    return [query_words(part) or part for part in parts]


def _next_query(task: Task, made: int) -> str:
    """What to search for after `made` searches: the next clause of a chain with what the ones before told,
    else, once, the words that were not found; an empty text when there is nothing more to ask."""
    clauses = split_clauses(task.question)
    if is_chained(clauses) and made < len(clauses):
        quotes: list[Quote] = []
        for clause in clauses[:made]:
            quotes += _pick(_resolve(clause, quotes, task), task.passages, limit=1)
        return query_words(_resolve(clauses[made], quotes, task))
    return _second_query(task) if made == 1 else ""


def _second_query(task: Task) -> str:
    """The question's words that no passage holds, when too many are missing; else an empty text."""
    wanted = set(content_terms(task.question))
    seen: set[str] = set()
    for passage in task.passages:
        seen.update(content_terms(f"{passage.heading}\n{passage.text}"))
    missing = wanted - seen
    if not wanted or len(missing) <= (1 - ENOUGH) * len(wanted):
        return ""
    words = query_words(task.question).split()
    return " ".join(word for word in words if set(content_terms(word)) <= missing)


def _find_truncated(task: Task) -> Passage | None:
    """The best passage, when the one that shows it says that it is cut off."""
    best = task.passages[0] if task.passages else None
    return best if best is not None and (best.truncated or best.text.endswith(("…", "..."))) else None


def _calls(tool: Tool, values: list[str], request: ModelRequest) -> tuple[ToolCall, ...]:
    calls = []
    for index, value in enumerate(dict.fromkeys(values)):
        arguments: dict[str, Json] = {tool.argument: value}
        if tool.count:
            arguments[tool.count] = MOST
        call_id = f"call_{request.turn}_{index}"
        calls.append(
            ToolCall(id=call_id, name=tool.name, arguments=arguments, raw=json.dumps(arguments, ensure_ascii=False))
        )
    return tuple(calls)


def _told(call: ToolCall) -> dict[str, Json]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines(keepends=True)
