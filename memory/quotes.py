"""Quotes out of passages: the sentences that most likely answer a question, as exact spans of their documents.

Ranks with `runs.quoting`; adds which document a sentence belongs to. Knows no index, models or tools.
"""

from __future__ import annotations

from collections.abc import Sequence

from retinue.memory.passages import Passage
from retinue.runs.contracts import Frozen
from retinue.runs.quoting import rank_quotes


class Quote(Frozen):
    """One or two adjacent sentences: `text == document.text[start:end]`; a higher score is a better match."""

    document_id: str
    start: int
    end: int
    text: str
    score: float


def find_quotes(question: str, passages: Sequence[Passage], limit: int = 3) -> list[Quote]:
    """At most `limit` quotes, best first, none overlapping; passages come best first, as a search gave them.

    Empty when no passage shares a word with the question.
    """
    texts = [passage.text for passage in passages]
    quotes: list[Quote] = []
    for found in rank_quotes(question, texts, limit, [passage.title for passage in passages]):
        passage = passages[found.source]
        quotes.append(
            Quote(
                document_id=passage.document_id,
                start=passage.start + found.start,
                end=passage.start + found.end,
                text=passage.text[found.start : found.end],
                score=found.score,
            )
        )
    return quotes
