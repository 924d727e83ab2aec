"""What the built-in model was asked and what it has been shown: read from the messages alone.

Owns the question, the passages found in tool results or in the input, and the calls already made. Ranks
nothing. A passage is any JSON object with a text and a document id, wherever it lies in a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_core import from_json

from retinue.runs.contracts import Json
from retinue.runs.messages import Message, ToolCall

QUESTION_KEYS = ("question", "query", "sub_question", "part", "task", "goal", "topic", "input", "text")
_TEXT_KEYS = ("text", "quote", "passage", "content", "snippet")
_ID_KEYS = ("document_id", "document", "doc_id", "id")
MOST_QUESTION = 2_000
"""Characters of a question that are looked at: enough for words, a bound for the time that splitting takes."""
_DEPTH = 12
_BLOCK = re.compile(r"(?m)^[ \t]*[{\[]")
_SHORTENED = re.compile(r"\n\[\.\.\. [^\n]*\.\.\.\]\n")
"""The mark that the context builder leaves where it cut a long result."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. `start` is where its text begins in the document, in characters; `rank` is its
    place in the list that showed it."""

    document: str
    text: str
    start: int = 0
    title: str = ""
    trail: str = ""
    rank: int = 0
    truncated: bool = False

    @property
    def heading(self) -> str:
        """Title and the headings above the passage."""
        return f"{self.title}\n{self.trail}" if self.trail else self.title


@dataclass(frozen=True, slots=True)
class Task:
    """The question, the passages seen so far (best first, as each list ranked them), the calls made."""

    question: str
    passages: tuple[Passage, ...]
    calls: tuple[ToolCall, ...]


def read_task(messages: tuple[Message, ...]) -> Task:
    """The task that the messages pose: the question is in the first user message, passages are in all that
    users and tools say."""
    first = next((message.content for message in messages if message.role == "user"), "")
    told = read_json(first)
    question = first.strip() if told is None else _find_question(told) or _without_json(first)
    found: list[Passage] = []
    calls: list[ToolCall] = []
    for message in messages:
        calls += message.tool_calls
        if message.role in ("user", "tool"):
            found += find_passages(read_json(message.content))
    return Task(question[:MOST_QUESTION], _arrange(found), tuple(calls))


def read_json(content: str) -> Json:
    """The JSON in a text: all of it, its beginning when it was cut, or the block after some words; else None."""
    block = _BLOCK.search(content)
    if block is None:
        return None
    told = _SHORTENED.split(content[block.end() - 1 :], maxsplit=1)[0]
    try:
        return from_json(told, allow_partial=True)
    except ValueError:
        return _read_first(told)


def find_passages(value: Json, rank: int = 0, depth: int = 0) -> Iterator[Passage]:
    """Every passage inside a JSON value; what lies inside a passage is not looked at again."""
    if depth > _DEPTH:
        return
    if isinstance(value, list):
        for place, part in enumerate(value):
            yield from find_passages(part, place, depth + 1)
    elif isinstance(value, dict):
        passage = _passage(value, rank)
        if passage is not None:
            yield passage
        else:
            for part in value.values():
                yield from find_passages(part, rank, depth + 1)


def _arrange(found: list[Passage]) -> tuple[Passage, ...]:
    """Best ranks first, otherwise as shown; a passage that was shown twice once."""
    once: dict[tuple[str, int, str], Passage] = {}
    for passage in sorted(found, key=lambda passage: passage.rank):
        once.setdefault((passage.document, passage.start, passage.text), passage)
    return tuple(once.values())


def _without_json(content: str) -> str:
    """The words before a block of JSON, or the whole text."""
    block = _BLOCK.search(content)
    return content[: block.start()].strip() if block else content


def _read_first(text: str) -> Json:
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _find_question(value: Json, depth: int = 0) -> str:
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, dict) or depth > _DEPTH:
        return ""
    for key in QUESTION_KEYS:
        if value.get(key):
            found = _find_question(value[key], depth + 1)
            if found:
                return found
    return ""


def _passage(value: dict[str, Json], rank: int) -> Passage | None:
    text = next((value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str)), "")
    document = next((value[key] for key in _ID_KEYS if isinstance(value.get(key), str | int)), None)
    if not text.strip() or document is None:
        return None
    start, title = value.get("start"), value.get("title")
    trail = value.get("trail")
    return Passage(
        document=str(document),
        text=text,
        start=start if isinstance(start, int) else 0,
        title=title if isinstance(title, str) else "",
        trail=" ".join(part for part in trail if isinstance(part, str)) if isinstance(trail, list) else "",
        rank=rank,
        truncated=value.get("truncated") is True,
    )
