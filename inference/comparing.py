"""Which of several named things came first or last, told from dates or versions in the evidence.

Owns the reading of dates and version numbers and the choice of a winner. It says nothing when one of the
alternatives has no value, when their values are of different kinds, or when the first two are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from retinue.inference.evidence import Passage
from retinue.inference.questions import Direction, context_words
from retinue.inference.quotes import Quote, pick_quotes
from retinue.runs.lexical import content_terms

Value = tuple[int, ...]

TITLE_WORDS = 100
"""More words than a title has; closeness counts down from here with each word that is not the name's."""
CANDIDATES = 8
"""Quotes about one alternative that are searched for a value."""

_MONTHS = {
    name: number
    for number, name in enumerate(
        "january february march april may june july august september october november december".split(), 1
    )
}
_MONTH = "|".join(_MONTHS)
_DATE = re.compile(
    r"\b(?P<iso>\d{4})-(?P<month>\d{2})(?:-(?P<day>\d{2}))?\b"
    rf"|\b(?:(?P<d1>\d{{1,2}})(?:st|nd|rd|th)? )?(?P<m1>{_MONTH})(?: (?P<d2>\d{{1,2}})(?:st|nd|rd|th)?,?)? "
    r"(?P<y1>\d{4})\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<![\w.-])(?:1[0-9]|20)\d{2}(?![\w-]|\.\d)")
_VERSION = re.compile(r"(?<![\w.-])v?(\d{1,4}(?:\.\d{1,4}){0,3})(?![\w-]|\.\d)")


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence says about one alternative: its value, and the quote that shows it."""

    name: str
    value: Value
    quote: Quote


@dataclass(frozen=True, slots=True)
class Verdict:
    """The winner's name and the quotes that show it, the winner's first."""

    winner: str
    quotes: tuple[Quote, ...]


def judge(question: str, names: Sequence[str], direction: Direction, passages: Sequence[Passage]) -> Verdict | None:
    """The winner among the named things, or None when the evidence does not tell."""
    context = context_words(question, tuple(names))
    for kind in ("date", "year", "version"):
        findings = [_find(name, kind, context, names, passages) for name in names]
        told = [finding for finding in findings if finding is not None]
        if len(told) < len(names):
            continue
        told.sort(key=lambda finding: finding.value, reverse=direction == "latest")
        if told[0].value == told[1].value:
            continue
        return Verdict(told[0].name, tuple(dict.fromkeys(finding.quote for finding in told)))
    return None


def find_values(text: str, kind: str) -> Iterator[tuple[int, Value]]:
    """Every date, year or version in a text, with its place."""
    if kind == "date":
        for match in _DATE.finditer(text):
            yield match.start(), _date(match)
    elif kind == "year":
        for match in _YEAR.finditer(text):
            yield match.start(), (int(match.group()),)
    else:
        dates = [match.span() for match in _DATE.finditer(text)]
        for match in _VERSION.finditer(text):
            if not any(start <= match.start() < end for start, end in dates):
                yield match.start(), tuple(int(part) for part in match.group(1).split("."))


def _date(match: re.Match[str]) -> Value:
    if match["iso"]:
        return int(match["iso"]), int(match["month"]), int(match["day"] or 0)
    return int(match["y1"]), _MONTHS[match["m1"].lower()], int(match["d1"] or match["d2"] or 0)


def _find(name: str, kind: str, context: str, names: Sequence[str], passages: Sequence[Passage]) -> Finding | None:
    """The best quote about `name` that holds a value, from the passages that are most closely about it."""
    about = [(_closeness(name, names, passage), passage) for passage in passages]
    closest = max((closeness for closeness, _ in about), default=0)
    chosen = [passage for closeness, passage in about if closeness == closest > 0]
    for quote in pick_quotes(f"{context} {name}", chosen, limit=CANDIDATES):
        value = _nearest_value(quote.text, kind, context, name)
        if value is not None:
            return Finding(name, value, quote)
    return None


def _closeness(name: str, names: Sequence[str], passage: Passage) -> int:
    """How closely a passage is about `name`: 0 not at all, 1 its text has all the terms, more when its title
    has them, most when the title has few others. A title that fits a rival is the rival's."""
    wanted, title = _terms(f"`{name}`"), _terms(passage.title)
    rivals = [_terms(f"`{other}`") for other in names if other != name]
    if not wanted or any(wanted < rival <= title for rival in rivals):
        return 0
    if wanted <= title:
        return max(2, TITLE_WORDS - len(title - wanted))
    if any(rival and rival <= title for rival in rivals):
        return 0
    return int(wanted <= _terms(passage.text))


@lru_cache(maxsize=1024)
def _terms(text: str) -> frozenset[str]:
    return frozenset(content_terms(text))


def _nearest_value(sentence: str, kind: str, context: str, name: str) -> Value | None:
    """The value that follows a word of the context (or of the name) most closely, else the first one."""
    values = list(find_values(sentence, kind))
    if not values:
        return None
    anchors = [
        match.end()
        for word in dict.fromkeys(f"{context} {name}".split())
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", sentence, re.IGNORECASE)
    ]
    gaps = [(place - anchor, place, value) for place, value in values for anchor in anchors if place >= anchor]
    return min(gaps)[2] if gaps else values[0][1]
