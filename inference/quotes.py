"""Quotes of passages: the ranking of `runs.quoting` brought to documents, with spans in characters of these.

Owns the way from a passage to a quote and the confidence that its score allows. Knows no schema, no message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from retinue.inference.evidence import Passage
from retinue.runs.lexical import find_words, fold
from retinue.runs.quoting import RANK_DECAY, Quotation, kind_of, rank_quotes

LIMIT = 3
"""Most quotes in an answer to one question."""
FLOOR = 0.35
"""A quote whose score is below this share of the best one's is left out."""
CANDIDATES = 12
"""So many times more quotes are ranked than are taken."""
BARE = 0.4
FIGURELESS = 0.5
STRANGE = 0.97
MOST_STRANGE = 5
"""Factors of `_Asked.weigh`, and the most names that count."""

_BARE = re.compile(r"#{1,6} |[-*+] [^.!?]*$|\|")
_NAME = re.compile(r"(?<=\S )[^\W\d_]*[A-Z]\w*")
_FIGURE = re.compile(
    r"\d[\w.-]*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|million"
    r"|billion|half|dozen|once|twice|January|February|March|April|May|June|July|August|September|October"
    r"|November|December|century|centuries|decade|first|second|third|quarter)\b"
)


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of a document exactly as they stand at `start`:`end` of it, in characters."""

    document: str
    title: str
    start: int
    end: int
    text: str
    score: float


def pick_quotes(question: str, passages: Sequence[Passage], limit: int = LIMIT) -> list[Quote]:
    """The quotes that most likely answer the question, best first, no two of the same words."""
    ranked = rank_quotes(
        question,
        [passage.text for passage in passages],
        CANDIDATES * limit,
        [passage.heading for passage in passages],
    )
    asked = _Asked(question)
    places = list(dict.fromkeys(passage.document for passage in passages))
    found = []
    for quotation in ranked:
        passage = passages[quotation.source]
        rank = places.index(passage.document) - quotation.source
        found.append(_quote(quotation, passage, asked, RANK_DECAY**rank))
    found.sort(key=lambda quote: -quote.score)
    quotes: list[Quote] = []
    for quote in found:
        if len(quotes) == limit or quote.score < FLOOR * found[0].score:
            break
        if not any(_overlap(quote, other) for other in quotes):
            quotes.append(quote)
    return quotes


def measure_confidence(quotes: Sequence[Quote]) -> float:
    """The best quote's score, at most 1: the weighted share of the question's words that it covers."""
    return round(min(1.0, max((quote.score for quote in quotes), default=0.0)), 2)


class _Asked:
    """What a question says about the form of its answer."""

    def __init__(self, question: str) -> None:
        self.kind = kind_of(question)
        self.words = frozenset(fold(word.group()) for word in find_words(question))

    def weigh(self, text: str) -> float:
        """A factor for a quote: less for headings and bare links, for one without a number when a number or
        a time is asked for, and for each name that the question does not name unless names are asked for."""
        factor = BARE if _BARE.match(text) else 1.0
        if self.kind in ("number", "time"):
            names = {fold(match.group()) for match in _NAME.finditer(text)} - self.words
            factor *= STRANGE ** min(len(names), MOST_STRANGE)
            if not any(match.group() not in self.words for match in _FIGURE.finditer(text)):
                factor *= FIGURELESS
        return factor


def _quote(found: Quotation, passage: Passage, asked: _Asked, factor: float) -> Quote:
    text = passage.text[found.start : found.end]
    return Quote(
        document=passage.document,
        title=passage.title,
        start=passage.start + found.start,
        end=passage.start + found.end,
        text=text,
        score=round(found.score * factor * asked.weigh(text), 4),
    )


def _overlap(one: Quote, other: Quote) -> bool:
    return one.document == other.document and one.start < other.end and other.start < one.end
