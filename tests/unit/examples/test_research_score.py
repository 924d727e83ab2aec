"""The scorer of the research example: what counts as right, and what does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from examples.research import score

SINGLE = {
    "id": "q1", "kind": "single", "answers": ["version 92", "Chrome 92"], "gold_docs": ["a.md"],
    "gold_spans": [["a.md", 10, 20]],
}  # fmt: skip
CHOICE = {
    "id": "q2", "kind": "comparison", "answers": [":has()"], "choices": [":has()", "gap"],
    "gold_docs": ["a.md", "b.md"], "gold_spans": [["a.md", 0, 5], ["b.md", 0, 5]],
}  # fmt: skip


def cite(document: str, start: int = 0, end: int = 5, quote: str = "") -> dict[str, Any]:
    return {"document": document, "start": start, "end": end, "quote": quote}


def mark(gold: dict[str, Any], answer: str, *citations: dict[str, Any]) -> dict[str, bool]:
    return score.score_answer({"id": gold["id"], "answer": answer, "citations": list(citations)}, gold)


@pytest.mark.parametrize("text", ["Since version 92.", "It is **Chrome 92**, I think", "“Version 92”"])
def test_a_gold_answer_in_the_text_is_right_when_a_gold_document_is_cited(text: str) -> None:
    assert mark(SINGLE, text, cite("a.md"))["right"]
    assert not mark(SINGLE, text, cite("b.md"))["right"]
    assert not mark(SINGLE, text)["right"]


@pytest.mark.parametrize("text", ["version 920", "version 9", "Edge 92", "in 92 versions", ""])
def test_another_answer_is_wrong(text: str) -> None:
    assert not mark(SINGLE, text, cite("a.md"))["right"]


@pytest.mark.parametrize(("start", "end", "right"), [(10, 20, True), (0, 99, True), (11, 20, False), (10, 19, False)])
def test_a_gold_span_must_lie_inside_a_quote(start: int, end: int, right: bool) -> None:
    assert mark(SINGLE, "see the quote", cite("a.md", start, end))["right"] is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("`:has()` came before `gap`.", True),
        ("It has been `:has()`.", True),
        ("`gap` came after `:has()`.", False),
        ("The row-gap property", False),
        ("neither", False),
    ],
)
def test_of_offered_choices_the_right_one_must_be_named_first(text: str, right: bool) -> None:
    marks = mark(CHOICE, text, cite("a.md"), cite("b.md"))
    assert marks["right"] is right
    assert marks["right_all"] is right


def test_one_of_two_gold_documents_is_right_but_not_right_all() -> None:
    marks = mark(CHOICE, ":has()", cite("a.md"))
    assert (marks["right"], marks["right_all"]) == (True, False)


def test_a_quote_that_its_document_does_not_hold_counts_for_nothing() -> None:
    documents = {"a.md": "0123456789version 92 and more"}
    answer = {"id": "q1", "answer": "version 92", "citations": [cite("a.md", 10, 20, "version 91")]}
    assert not score.score_answer(answer, SINGLE, documents)["right"]
    answer["citations"] = [cite("a.md", 10, 20, "version 92")]
    assert score.score_answer(answer, SINGLE, documents)["right"]


def test_a_missing_answer_counts_as_wrong() -> None:
    summary = score.summarize([], [SINGLE, CHOICE])
    assert summary["questions"] == 2
    assert summary["all"]["right"] == 0
    assert summary["kinds"]["single"]["count"] == 1


def test_the_script_prints_a_table_or_json_and_names_a_broken_line(tmp_path: Path) -> None:
    gold, answers = tmp_path / "gold.jsonl", tmp_path / "answers.jsonl"
    gold.write_text(json.dumps(SINGLE) + "\n")
    answers.write_text(json.dumps({"id": "q1", "answer": "version 92", "citations": [cite("a.md")]}) + "\n")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, score.__file__, str(answers), "--gold", str(gold), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert json.loads(run("--json").stdout)["all"]["right"] == 1.0
    assert "100.0%" in run().stdout
    answers.write_text("{half\n")
    broken = run()
    assert broken.returncode == 2
    assert "answers.jsonl:1 is no JSON" in broken.stderr
