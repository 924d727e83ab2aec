"""The research example's committed corpus: sizes, ids, gold that can be found, questions that leak nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from examples.research import score

from retinue.memory.index import Corpus, open_corpus
from retinue.memory.quotes import find_quotes

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "research"
QUESTIONS = score.read_rows(FOLDER / "questions.jsonl")
GOLD = {row["id"]: row for row in score.read_rows(FOLDER / "gold.jsonl")}
BIG_FOUR = ("Chrome", "Edge", "Firefox", "Safari")
FACT = re.compile(r"version ([\d.]+),? (?:which was )?released on (\d{4}-\d\d-\d\d)\.")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(FOLDER / "documents", tmp_path_factory.mktemp("cache"))


def span_text(corpus: Corpus, span: list[Any]) -> str:
    return corpus.read(span[0]).text[span[1] : span[2]]


def sentence_around(text: str, place: int) -> str:
    return text[text.rfind("\n", 0, place) + 1 : text.index("\n", place)]


def test_the_corpus_has_its_size(corpus: Corpus) -> None:
    files = [path for path in (FOLDER / "documents").rglob("*") if path.is_file()]
    files += [FOLDER / "questions.jsonl", FOLDER / "gold.jsonl"]
    assert sum(path.stat().st_size for path in files) <= 1_000_000
    assert 140 <= len(corpus.titles()) <= 160
    assert corpus.skipped() == []
    assert len({title for _, title in corpus.titles()}) == len(corpus.titles())


def test_ids_are_unique_and_every_question_has_its_gold() -> None:
    ids = [row["id"] for row in QUESTIONS]
    assert len(set(ids)) == len(ids) == 300
    assert ids == list(GOLD)
    assert len({row["question"] for row in QUESTIONS}) == len(QUESTIONS)
    kinds = Counter(row["kind"] for row in QUESTIONS)
    assert kinds == {"single": 150, "comparison": 90, "multihop": 60}
    assert all(set(row) == {"id", "question", "kind"} for row in QUESTIONS)


def test_agents_cannot_read_gold(corpus: Corpus) -> None:
    assert {path.suffix for path in (FOLDER / "documents").rglob("*") if path.is_file()} == {".md"}
    question = QUESTIONS[0]
    assert question["id"] not in "".join(document.text for document in corpus.documents())


def test_gold_spans_hold_the_gold_answer(corpus: Corpus) -> None:
    for row in GOLD.values():
        for span in row["gold_spans"]:
            assert span[0] in row["gold_docs"]
            found = span_text(corpus, span)
            if row["kind"] == "comparison":
                assert re.fullmatch(r"\d{4}-\d\d-\d\d", found)
            else:
                assert found == row["answers"][0]


def test_the_sentence_of_a_gold_span_answers_its_question(corpus: Corpus) -> None:
    for question in QUESTIONS:
        row = GOLD[question["id"]]
        if row["kind"] != "single":
            continue
        document, start, _ = row["gold_spans"][0]
        sentence = sentence_around(corpus.read(document).text, start)
        name = re.findall(r"`([^`]+)`", question["question"])[0]
        assert f"`{name}`" in sentence
        assert FACT.search(sentence)


def test_comparisons_are_decided_by_the_days_in_their_spans(corpus: Corpus) -> None:
    for question in QUESTIONS:
        row = GOLD[question["id"]]
        if row["kind"] != "comparison":
            continue
        days = [span_text(corpus, span) for span in row["gold_spans"]]
        browsers = [name for name in BIG_FOUR if re.search(rf"\b{name}\b", question["question"])]
        pick = max if re.search(r"\b(later|last)\b", question["question"]) else min
        best = row["choices"][days.index(pick(days))]
        assert row["answers"] == [best]
        assert len(browsers) == 1
        assert len(set(row["choices"])) == len(row["gold_docs"]) == len(days) >= 2
        for document, start, _ in row["gold_spans"]:
            assert browsers[0] in sentence_around(corpus.read(document).text, start)


def test_questions_do_not_hold_their_answers() -> None:
    for question in QUESTIONS:
        row = GOLD[question["id"]]
        if row["kind"] != "comparison":
            text = score.words(question["question"])
            assert all(score.find_words(answer, text) < 0 for answer in row["answers"]), question


def test_the_first_hop_of_a_question_can_be_found(corpus: Corpus) -> None:
    hops = [row for row in QUESTIONS if "earliest to ship" in row["question"]]
    assert len(hops) == 25
    for question in hops:
        row = GOLD[question["id"]]
        text = corpus.read(row["gold_docs"][0]).text
        earliest = re.search(r"The earliest of the big four browsers to ship `.+` was (\w+), on", text)
        assert earliest
        assert row["answers"][1].startswith(f"{earliest[1]} ")


def test_three_quotes_answer_nearly_all_single_questions(corpus: Corpus) -> None:
    rows = []
    for question in QUESTIONS:
        passages = corpus.search(question["question"], k=4)
        quotes = find_quotes(question["question"], passages, limit=3)
        citations = [
            {"document": quote.document_id, "start": quote.start, "end": quote.end, "quote": quote.text}
            for quote in quotes
        ]
        rows.append({"id": question["id"], "answer": quotes[0].text, "citations": citations})
    texts = {document.id: document.text for document in corpus.documents()}
    single = score.summarize(rows, GOLD.values(), texts)["kinds"]["single"]
    assert single["gold_doc_cited"] >= 0.98
    assert single["span_quoted"] >= 0.95


def test_the_source_is_named() -> None:
    notice = (FOLDER / "NOTICE.md").read_text(encoding="utf-8")
    assert "CC0-1.0" in notice
    assert re.search(r"version \d+\.\d+\.\d+", notice)
    assert json.dumps(len(QUESTIONS)) in notice
