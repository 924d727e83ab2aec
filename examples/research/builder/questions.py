"""Questions about the pages, with gold answers computed from the data.

Owns the wording and the rules of what is asked: a question never holds its own answer (a choice that a
comparison offers aside), and every gold span lies in a gold document. Knows no file formats of the data.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from .features import BIG_FOUR, Data
from .pages import Page

SEED = 20150101
SINGLES, PAIRS, TRIPLES = 150, 60, 30
EARLIEST_HOPS, RELEASE_HOPS, PART_HOPS = 25, 20, 15
MIN_DAYS = 60
"""Two features that are compared reached the browser at least so many days apart."""

SINGLE_FORMS = (
    "Since which version does {browser} support {feature}?",
    "Which version of {browser} was the first to support {feature}?",
    "From which version on does {feature} work in {browser}?",
    "In which version did {browser} add support for {feature}?",
)
DATE_FORMS = (
    "When did {browser} add support for {feature}?",
    "On which day was the version of {browser} released that first supported {feature}?",
)
PAIR_FORMS = (
    ("Which did {browser} support first: {a} or {b}?", min),
    ("Which of {a} and {b} was added to {browser} later?", max),
    ("Did {a} or {b} come to {browser} first?", min),
    ("Which one reached {browser} earlier, {a} or {b}?", min),
    ("Of {a} and {b}, which did {browser} support last?", max),
)
TRIPLE_FORMS = (
    ("Of {a}, {b} and {c}, which did {browser} support first?", min),
    ("Which of {a}, {b} and {c} was the earliest to come to {browser}?", min),
    ("Which of {a}, {b} and {c} was added to {browser} last?", max),
)
EARLIEST_HOP = (
    "Which of the big four browsers was the earliest to ship {a}, and since which version does it support {b}?"
)
RELEASE_HOP = "Since which version does {browser} support the {area} feature that {other} added in version {version}?"
PART_HOP = 'Since which version does {browser} support the feature that has "{part}" among its parts?'


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold; `choices` are the names that a comparison offers."""

    kind: str
    question: str
    answers: tuple[str, ...]
    docs: tuple[str, ...]
    spans: tuple[tuple[str, int, int], ...]
    choices: tuple[str, ...] = ()


def write_questions(data: Data, pages: Sequence[Page]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the question file and those of the gold file, in the same order."""
    rng = Random(SEED)
    items = [
        *islice(_ask_singles(data, pages, rng), SINGLES),
        *islice(_ask_comparisons(data, pages, rng, PAIR_FORMS, 2), PAIRS),
        *islice(_ask_comparisons(data, pages, rng, TRIPLE_FORMS, 3), TRIPLES),
        *islice(_ask_earliest_hops(data, pages, rng), EARLIEST_HOPS),
        *islice(_ask_release_hops(data, pages, rng), RELEASE_HOPS),
        *islice(_ask_part_hops(data, pages, rng), PART_HOPS),
    ]
    seen: Counter[str] = Counter()
    questions, gold = [], []
    for item in items:
        seen[item.kind] += 1
        name = f"{item.kind}-{seen[item.kind]:03d}"
        questions.append({"id": name, "question": item.question, "kind": item.kind})
        row: dict[str, Any] = {"id": name, "kind": item.kind, "answers": item.answers}
        row |= {"gold_docs": item.docs, "gold_spans": item.spans}
        gold.append(row | ({"choices": item.choices} if item.choices else {}))
    return questions, gold


def _shuffle(pages: Sequence[Page], rng: Random) -> list[Page]:
    return rng.sample(list(pages), len(pages))


def _version_answers(data: Data, page: Page, browser: str) -> tuple[str, ...]:
    version = page.feature.support[browser].version
    return (f"version {version}", f"{data.browser_name(browser)} {version}")


def _date_answers(date: str) -> tuple[str, ...]:
    year, month, day = (int(part) for part in date.split("-"))
    name = calendar.month_name[month]
    return (date, f"{name} {day}, {year}", f"{day} {name} {year}")


def _ask_singles(data: Data, pages: Sequence[Page], rng: Random) -> Iterator[Item]:
    while True:
        for page in _shuffle(pages, rng):
            browsers = [each for each in page.facts if each not in BIG_FOUR]
            browser = rng.choice(browsers) if browsers and rng.random() < 0.3 else rng.choice(BIG_FOUR)
            about_date = rng.random() < 0.2
            form = rng.choice(DATE_FORMS if about_date else SINGLE_FORMS)
            question = form.format(browser=data.browser_name(browser), feature=page.feature.phrase)
            if about_date:
                answers = _date_answers(page.feature.support[browser].date)
                span = page.dates[browser]
            else:
                answers, span = _version_answers(data, page, browser), page.facts[browser]
            yield Item("single", question, answers, (page.document,), ((page.document, *span),))


def _ask_comparisons(
    data: Data,
    pages: Sequence[Page],
    rng: Random,
    forms: Sequence[tuple[str, Callable[..., Any]]],
    width: int,
) -> Iterator[Item]:
    asked: set[tuple[str, ...]] = set()
    while True:
        browser = rng.choice(BIG_FOUR)
        root = rng.choice(pages).feature.kind.root
        group = [page for page in pages if page.feature.kind.root == root]
        form, pick = rng.choice(forms)
        if len(group) < width:
            continue
        some = rng.sample(group, width)
        days = [_day(page.feature.support[browser].date) for page in some]
        best = some[days.index(pick(days))]
        names = tuple(sorted(page.feature.name for page in some))
        gap = min(abs(day - pick(days)) for page, day in zip(some, days, strict=True) if page is not best)
        if gap < MIN_DAYS or names in asked:
            continue
        asked.add(names)
        phrases = dict(zip("abc", (page.feature.phrase for page in some), strict=False))
        yield Item(
            kind="comparison",
            question=form.format(browser=data.browser_name(browser), **phrases),
            answers=(best.feature.name,),
            docs=tuple(page.document for page in some),
            spans=tuple((page.document, *page.dates[browser]) for page in some),
            choices=tuple(page.feature.name for page in some),
        )


def _day(date: str) -> int:
    year, month, day = (int(part) for part in date.split("-"))
    return calendar.timegm((year, month, day, 0, 0, 0)) // 86_400


def _ask_earliest_hops(data: Data, pages: Sequence[Page], rng: Random) -> Iterator[Item]:
    """First the browser, found on one page, then its version, found on another."""
    order = _shuffle(pages, rng)
    by_browser = [[page for page in order if page.earliest == browser] for browser in BIG_FOUR]
    for turn in range(len(order)):
        group = by_browser[turn % len(by_browser)]
        if not group:
            continue
        first = group.pop()
        second = rng.choice([page for page in pages if page.feature.kind == first.feature.kind and page is not first])
        span = (second.document, *second.facts[first.earliest])
        yield Item(
            kind="multihop",
            question=EARLIEST_HOP.format(a=first.feature.phrase, b=second.feature.phrase),
            answers=_version_answers(data, second, first.earliest),
            docs=(first.document, second.document),
            spans=(span,),
        )


def _ask_release_hops(data: Data, pages: Sequence[Page], rng: Random) -> Iterator[Item]:
    """First the feature, found by a release that only one page of its area names, then its version elsewhere."""
    count = Counter(key for page in pages for key in _releases(page))
    for page in _shuffle(pages, rng):
        rare = [key for key in _releases(page) if count[key] == 1 and key[1] not in BIG_FOUR]
        if not rare:
            continue
        area, other, version = rng.choice(rare)
        browsers = [each for each in BIG_FOUR if page.feature.support[each].version != version]
        if browsers:
            browser = rng.choice(browsers)
            question = RELEASE_HOP.format(
                browser=data.browser_name(browser), area=area, other=data.browser_name(other), version=version
            )
            yield _hop_to_version(data, page, browser, question)


def _releases(page: Page) -> list[tuple[str, str, str]]:
    area = page.feature.path.split(".")[0]
    area = {"javascript": "JavaScript", "api": "Web API"}.get(area, area.upper())
    return [(area, browser, page.feature.support[browser].version) for browser in page.facts]


def _ask_part_hops(data: Data, pages: Sequence[Page], rng: Random) -> Iterator[Item]:
    """First the feature, found by a part that no other page names, then its version."""
    count = Counter(part.name.lower() for page in pages for part in page.feature.parts)
    for page in _shuffle(pages, rng):
        telling = [part.name for part in page.feature.parts if count[part.name.lower()] == 1 and " " in part.name]
        if telling:
            browser = rng.choice(BIG_FOUR)
            part = rng.choice(telling).replace('"', "'")
            question = PART_HOP.format(browser=data.browser_name(browser), part=part)
            if page.feature.name.lower() not in question.lower():
                yield _hop_to_version(data, page, browser, question)


def _hop_to_version(data: Data, page: Page, browser: str, question: str) -> Item:
    span = (page.document, *page.facts[browser])
    return Item("multihop", question, _version_answers(data, page, browser), (page.document,), (span,))
