"""A feature's page in Markdown, and where in it each fact stands.

Owns every sentence that a page may hold. A fact is one sentence that names the browser, the feature, the version
and its release day; its span points at the words `version N` in it. Knows no questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .features import BIG_FOUR, DESKTOP, MOBILE, RUNTIMES, Data, Feature, Support, web_feature_ids

FACT_FORMS = (
    "{browser} supports {feature} since version {version}, released on {date}.",
    "{browser} added support for {feature} in version {version}, released on {date}.",
    "{browser} has supported {feature} since version {version}, which was released on {date}.",
    "Support for {feature} came to {browser} with version {version}, released on {date}.",
)
EARLIEST_FORM = "The earliest of the big four browsers to ship {feature} was {browser}, on {date}."
MAX_PARTS = 14
MAX_NOTES = 8


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page: `facts` maps a browser to the span of `version N` in its sentence, `dates` to its day's."""

    feature: Feature
    document: str
    text: str
    facts: dict[str, tuple[int, int]]
    dates: dict[str, tuple[int, int]]
    earliest: str


def render_page(data: Data, feature: Feature) -> Page:
    """The page of one feature. The same data gives the same text."""
    earliest = find_earliest(feature)
    blocks = [
        f"# {_title(feature)}",
        _introduce(feature),
        _list_links(feature),
        "## Browser support",
        _tell(data, feature, DESKTOP),
        _tell_earliest(data, feature, earliest),
        "## Mobile browsers",
        _tell(data, feature, MOBILE),
        *_tell_runtimes(data, feature),
        *_tabulate_parts(data, feature),
        *_list_notes(data, feature),
    ]
    text = "\n\n".join(block for block in blocks if block) + "\n"
    facts, dates = {}, {}
    for browser in feature.support:
        support = feature.clean(browser)
        if support:
            start = text.index(write_support(data, feature, support))
            facts[browser] = _locate(text, f"version {support.version}", start)
            dates[browser] = _locate(text, support.date, start)
    return Page(feature, f"{feature.slug}.md", text, facts, dates, earliest)


def find_earliest(feature: Feature) -> str:
    """The one of the big four that had the feature before all others, empty when two share the day."""
    found = sorted((support.date, browser) for browser in BIG_FOUR if (support := feature.clean(browser)))
    return found[0][1] if found[0][0] < found[1][0] else ""


def write_support(data: Data, feature: Feature, support: Support) -> str:
    """One sentence about one browser."""
    browser, name = data.browser_name(support.browser), f"`{feature.name}`"
    if support.flaw is None:
        lot = hashlib.sha256(f"{feature.path}|{support.browser}".encode()).digest()[0]
        form = FACT_FORMS[lot % len(FACT_FORMS)]
        return form.format(browser=browser, feature=name, version=support.version, date=support.date)
    return _write_flaw(browser, name, support)


def _write_flaw(browser: str, name: str, support: Support) -> str:
    flaw, version = support.flaw or {}, support.version
    if not version:
        return f"{browser} does not support {name}." if flaw.get("version_added") is False else ""
    if version == "preview":
        return f"{browser} has {name} in its preview builds only."
    if removed := flaw.get("version_removed"):
        return f"{browser} had {name} for a while and dropped it in version {removed}."
    if flags := flaw.get("flags"):
        return f"{browser} keeps {name} behind the switch `{flags[0].get('name', 'unnamed')}`."
    if other := flaw.get("alternative_name") or (f"{flaw['prefix']}…" if flaw.get("prefix") else ""):
        return f"{browser} knows {name} as `{other}`, from version {version} on."
    if flaw.get("partial_implementation"):
        return f"{browser} implements {name} only in part, from version {version} on."
    return f"{browser} supports {name} in version {version.lstrip('≤')}, perhaps earlier."


def _locate(text: str, words: str, start: int) -> tuple[int, int]:
    begin = text.index(words, start)
    return begin, begin + len(words)


def _title(feature: Feature) -> str:
    noun = feature.kind.noun.removeprefix("the ")
    return f"`{feature.name}` ({noun})" if noun else f"`{feature.name}`"


def _introduce(feature: Feature) -> str:
    name = f"`{feature.name}`"
    owner = feature.name.split(".")[0]
    if feature.kind.noun:
        first = f"{name} is {_article(feature.kind.noun.removeprefix('the '))}."
    elif "." not in feature.name:
        first = f"{name} is a built-in object of JavaScript."
    else:
        sort = "method" if feature.name.endswith("()") else "property"
        place = "of instances of" if ".prototype." in feature.name else "of"
        first = f"{name} is a {sort} {place} the JavaScript built-in `{owner}`."
    sentences = [first, "It is on the standards track and neither experimental nor deprecated."]
    for tag in feature.about.get("tags", []):
        if tag.startswith("web-features:snapshot:ecmascript-"):
            sentences.append(f"It entered the language with ECMAScript {tag.rpartition('-')[2]}.")
    return " ".join(sentences)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiouHi" else f"a {noun}"


def _list_links(feature: Feature) -> str:
    specs = feature.about.get("spec_url", [])
    specs = [specs] if isinstance(specs, str) else specs
    lines = [f"- Area: {feature.kind.area}"]
    lines += [f"- Specification: <{spec}>" for spec in specs]
    if "mdn_url" in feature.about:
        lines.append(f"- Reference on MDN: `/docs/{feature.about['mdn_url'].partition('/docs/')[2]}`")
    ids = web_feature_ids(feature)
    if ids:
        lines.append(f"- Web feature: {', '.join(f'`{entry}`' for entry in ids)}")
    return "\n".join(lines)


def _tell(data: Data, feature: Feature, browsers: Iterable[str]) -> str:
    told = [write_support(data, feature, feature.support[each]) for each in browsers if each in feature.support]
    return "\n".join(sentence for sentence in told if sentence)


def _tell_earliest(data: Data, feature: Feature, earliest: str) -> str:
    if not earliest:
        return ""
    date = feature.support[earliest].date
    return EARLIEST_FORM.format(feature=f"`{feature.name}`", browser=data.browser_name(earliest), date=date)


def _tell_runtimes(data: Data, feature: Feature) -> Sequence[str]:
    told = _tell(data, feature, RUNTIMES)
    return ("## Server runtimes", told) if told else ()


def _tabulate_parts(data: Data, feature: Feature) -> Sequence[str]:
    if not feature.parts:
        return ()
    heads = [data.browser_name(browser) for browser in BIG_FOUR]
    rows = [f"| Part | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    rows += [f"| {part.name} | {' | '.join(part.versions)} |" for part in feature.parts[:MAX_PARTS]]
    return "## Parts", "Some parts are followed on their own; a cell holds the first full release.", "\n".join(rows)


def _list_notes(data: Data, feature: Feature) -> Sequence[str]:
    notes = list(dict.fromkeys(f"- {data.browser_name(browser)}: {note}" for browser, note in feature.notes))
    return ("## Notes", "\n".join(notes[:MAX_NOTES])) if notes else ()
