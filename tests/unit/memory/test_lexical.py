"""Words, stems and sentences: what the lexical ground promises for any text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.runs.lexical import MAX_SENTENCE_CHARS, content_terms, content_words, split_sentences, stem
from retinue.runs.quoting import kind_of, rank_quotes


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"), ("ponies", "poni"), ("agreed", "agre"), ("hopping", "hop"), ("sizing", "size"),
        ("filing", "file"), ("happy", "happi"), ("relational", "relat"), ("hopefulness", "hope"),
        ("electricity", "electr"), ("adoption", "adopt"), ("replacement", "replac"), ("sky", "sky"),
        ("v8", "v8"), ("at", "at"), ("naïve", "naïve"),
    ],
)  # fmt: skip
def test_stem_follows_porter(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_questions_and_answers_meet_in_their_stems() -> None:
    assert set(content_terms("Which city was founded?")) & set(content_terms("the founding of cities"))


def test_stop_words_count_only_as_code() -> None:
    assert content_words("Is it at the end?") == ["end"]
    assert content_words("Does Chrome have `Array.prototype.at()` and `:has()`?") == [
        "chrome", "array", "prototype", "at", "has",
    ]  # fmt: skip
    assert content_words("the CSS property `r` of Newton's law") == ["css", "property", "r", "newton", "law"]


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = 'Mr. Smith left Washington, D.C. in 1990. He said "No." Version 2.0 came, e.g. in May!\nWrapped\nline.'
    assert sentences(text) == [
        "Mr. Smith left Washington, D.C. in 1990.",
        'He said "No."',
        "Version 2.0 came, e.g. in May!",
        "Wrapped\nline.",
    ]


def test_headings_items_and_rows_are_sentences_of_their_own() -> None:
    assert sentences("# Title\nText here.\n- one\n- two\n\n| a | b |\n| 1 | 2 |\nAfter") == [
        "# Title", "Text here.", "- one", "- two", "| a | b |", "| 1 | 2 |", "After",
    ]  # fmt: skip


@given(st.text(alphabet="aB. \n#|-!?\"'1`", max_size=400))
def test_sentences_are_ordered_trimmed_and_lose_no_character(text: str) -> None:
    spans = split_sentences(text)
    kept = "".join(text[start:end] for start, end in spans)
    assert all(end <= follow for (_, end), (follow, _) in pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    assert [char for char in kept if not char.isspace()] == [char for char in text if not char.isspace()]


@pytest.mark.parametrize("text", ["x" * 5_000, "word " * 2_000, "a\n" * 3_000])
def test_a_sentence_has_a_bound(text: str) -> None:
    assert max(end - start for start, end in split_sentences(text)) <= MAX_SENTENCE_CHARS


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who led the team?", "person"), ("In what year did it end?", "time"), ("How many were there?", "number"),
        ("Since which version does it work?", "number"), ("Where is it?", "place"), ("Why is it so?", ""),
    ],
)  # fmt: skip
def test_a_question_says_what_kind_of_thing_it_wants(question: str, kind: str) -> None:
    assert kind_of(question) == kind


def test_the_sentence_with_the_number_wins_when_a_number_is_asked_for() -> None:
    text = "The tower of the town was built of stone. The tower is 93 metres high."
    best = rank_quotes("How high is the tower?", [text], 1)[0]
    assert "93" in text[best.start : best.end]


def test_a_title_counts_for_every_sentence_of_its_text() -> None:
    texts = ["It opened in 1910.", "It opened in 1920."]
    best = rank_quotes("When was the Harbour Bridge opened?", texts, 2, ["Old Mill", "Harbour Bridge"])
    assert best[0].source == 1


def test_quotes_do_not_overlap_and_come_best_first() -> None:
    text = "Cats eat mice. Cats and dogs fight over mice and fish. Dogs eat bones. Cats sleep."
    quotes = rank_quotes("Do cats and dogs eat mice or fish?", [text], 4)
    spans = sorted((quote.start, quote.end) for quote in quotes)
    assert all(end <= follow for (_, end), (follow, _) in pairwise(spans))
    assert [quote.score for quote in quotes] == sorted((quote.score for quote in quotes), reverse=True)


@pytest.mark.parametrize(
    ("question", "texts", "limit"), [("", ["a b"], 3), ("the of", ["the of"], 3), ("cat", ["cat"], 0)]
)
def test_nothing_to_rank_gives_no_quotes(question: str, texts: list[str], limit: int) -> None:
    assert rank_quotes(question, texts, limit) == []
    assert rank_quotes("cat", ["dogs bark."], 3) == []
