"""Quotes: the sentences of some texts that most likely answer a question, ranked by words alone.

Pure functions over strings, deterministic, used by recall and by the built-in offline model alike. A sentence
scores by the rare question words it holds, by those that stand together as they do in the question, by what
its neighbour adds and by whether it holds the kind of thing that is asked for (a number, a date, a name).
Knows no documents, models or runs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from retinue.runs.lexical import Span, content_words, find_words, fold, is_content, split_sentences, stem

TITLE_WEIGHT = 0.3
"""What a question word is worth when only the title of the text holds it."""
NEIGHBOUR_WEIGHT = 0.35
"""What a question word is worth when only the sentence before holds it."""
PAIR_WEIGHT = 0.4
"""Extra worth of two question words that stand together here too, as a share of their weights."""
KIND_BONUS = 0.35
"""Extra share for a sentence that holds the kind of thing asked for."""
RANK_DECAY = 0.85
"""Factor by which each later text counts less: texts come best first."""
LENGTH_WEIGHT = 0.05
"""How much a sentence loses for each doubling beyond LENGTH_CHARS."""
LENGTH_CHARS = 160
HEADING_SHARE = 0.4
"""What a heading is worth: it names a thing but states nothing."""
WORD_COST = 0.001
"""What each word costs, so that of two sentences with the same question words the shorter comes first."""
JOIN_SHARE = 0.12
"""A neighbour joins a quote when it adds this share of the question's weight."""


class Quotation(NamedTuple):
    """A span of `texts[source]`; `score` is the share of the question's weight that it covers, about 0 to 1.5."""

    source: int
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence made ready for ranking: its stemmed terms in order, and where it stands."""

    source: int
    start: int
    end: int
    words: tuple[str, ...]
    terms: frozenset[str]


@dataclass(frozen=True, slots=True)
class Query:
    """A question made ready: its distinct terms with weights, pairs that stand together, the kind asked for."""

    weights: Mapping[str, float]
    pairs: frozenset[tuple[str, str]]
    kind: str
    total: float


_KINDS = (
    ("person", re.compile(r"\b(?:who|whom|whose)\b")),
    (
        "time",
        re.compile(r"\b(?:when|(?:what|which|in what|in which) (?:year|date|day|month|century|decade|time))\b"),
    ),
    ("number", re.compile(r"\bhow (?:many|much|long|old|far|tall|large|big|high|often|fast)\b")),
    (
        "number",
        re.compile(r"\b(?:what|which) (?:percent\w*|number|amount|share|proportion|version|age|score)\b"),
    ),
    ("number", re.compile(r"\bsince (?:what|which) version\b")),
    (
        "place",
        re.compile(r"\b(?:where|(?:what|which) (?:city|country|state|place|town|region|location|university))\b"),
    ),
)
_EVIDENCE = {
    "time": re.compile(
        r"\b(?:1\d{3}|20\d{2}|\d{1,2}(?:st|nd|rd|th)|January|February|March|April|June|July|August|September"
        r"|October|November|December|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|centur(?:y|ies))\b|\b\d+s\b"
    ),
    "number": re.compile(
        r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty"
        r"|seventy|eighty|ninety|hundred|thousand|million|billion|half|dozen|once|twice|third|quarter)s?\b"
    ),
}  # fmt: skip
_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w’'-]+")


def rank_quotes(question: str, texts: Sequence[str], limit: int, titles: Sequence[str] = ()) -> list[Quotation]:
    """At most `limit` quotes, best first, none overlapping, each of one or two adjacent sentences.

    `texts` come best first, as a search gave them; `titles` (one for each text, or none) say what a text is
    about, so that a sentence need not repeat it. Empty when no text shares a word with the question.
    """
    sentences = [sentence for source, text in enumerate(texts) for sentence in _read_sentences(source, text)]
    query = weigh_question(question, sentences)
    if not query.total or limit < 1:
        return []
    about = [frozenset(stem(word) for word in content_words(title)) for title in titles]
    scores = [_score(query, sentences, place, texts, about) for place in range(len(sentences))]
    order = sorted(range(len(sentences)), key=lambda place: (-scores[place], place))
    quotes: list[Quotation] = []
    taken: set[int] = set()
    for place in order:
        if len(quotes) == limit or scores[place] <= 0:
            break
        if place not in taken:
            members = _join_neighbour(query, sentences, place, scores, taken)
            taken.update(members)
            first, last = sentences[members[0]], sentences[members[-1]]
            quotes.append(Quotation(first.source, first.start, last.end, round(scores[place], 4)))
    return quotes


def weigh_question(question: str, sentences: Sequence[Sentence]) -> Query:
    """The question's terms, each weighted by how rare it is among the sentences."""
    terms = [stem(word) for word in content_words(question)]
    found = Counter(term for sentence in sentences for term in sentence.terms)
    count = len(sentences)
    weights = {term: math.log(1 + (count + 1) / (found[term] + 0.5)) for term in terms}
    pairs = frozenset(pairwise(terms))
    return Query(weights, pairs, kind_of(question), sum(weights.values()))


def kind_of(question: str) -> str:
    """What a question asks for: person, time, number, place, or an empty text when its words do not say."""
    lowered = question.lower()
    return next((kind for kind, pattern in _KINDS if pattern.search(lowered)), "")


def _read_sentences(source: int, text: str) -> list[Sentence]:
    return [_read_sentence(source, text, span) for span in split_sentences(text)]


def _read_sentence(source: int, text: str, span: Span) -> Sentence:
    sentence = text[span[0] : span[1]]
    words = tuple(stem(fold(word.group())) for word in find_words(sentence) if is_content(sentence, word))
    return Sentence(source, span[0], span[1], words, frozenset(words))


def _score(
    query: Query,
    sentences: Sequence[Sentence],
    place: int,
    texts: Sequence[str],
    about: Sequence[frozenset[str]],
) -> float:
    sentence = sentences[place]
    before = sentences[place - 1] if place and sentences[place - 1].source == sentence.source else None
    title = about[sentence.source] if sentence.source < len(about) else frozenset[str]()
    covered = 0.0
    for term, weight in query.weights.items():
        if term in sentence.terms:
            covered += weight
        elif before and term in before.terms:
            covered += weight * NEIGHBOUR_WEIGHT
        elif term in title:
            covered += weight * TITLE_WEIGHT
    together = query.pairs.intersection(pairwise(sentence.words))
    covered += PAIR_WEIGHT * sum(min(query.weights[one], query.weights[two]) for one, two in together)
    if covered and holds_kind(query, texts[sentence.source][sentence.start : sentence.end]):
        covered += KIND_BONUS * query.total * min(1.0, 2 * covered / query.total)
    length = max(1.0, (sentence.end - sentence.start) / LENGTH_CHARS)
    share = covered / query.total * RANK_DECAY**sentence.source / (1 + LENGTH_WEIGHT * math.log2(length))
    if texts[sentence.source].startswith("#", sentence.start):
        share *= HEADING_SHARE
    return share - WORD_COST * len(sentence.words)


def holds_kind(query: Query, sentence: str) -> bool:
    """Whether a sentence holds something of the kind asked for that the question itself does not name."""
    if query.kind in _EVIDENCE:
        found = (match.group() for match in _EVIDENCE[query.kind].finditer(sentence))
    elif query.kind:
        found = (match.group() for match in _NAME.finditer(sentence))
    else:
        return False
    return any(stem(fold(name)) not in query.weights for name in found)


def _join_neighbour(
    query: Query, sentences: Sequence[Sentence], place: int, scores: Sequence[float], taken: set[int]
) -> list[int]:
    """The sentence, with the better of its free neighbours when that adds enough of what is missing."""
    best, gain = place, JOIN_SHARE * query.total
    for other in (place - 1, place + 1):
        if not 0 <= other < len(sentences) or other in taken:
            continue
        if sentences[other].source != sentences[place].source:
            continue
        added = sum(
            query.weights[term] for term in sentences[other].terms - sentences[place].terms if term in query.weights
        )
        if added > gain:
            best, gain = other, added
    return sorted({place, best})
