"""What a question asks for, as far as its words show it: alternatives, named things, clauses.

Owns the splitting of questions into sub-queries. Pure functions over one string; knows no passages.
"""

from __future__ import annotations

import re
from typing import Literal

from retinue.runs.lexical import STOP_WORDS, content_terms, find_words, fold, is_content

Direction = Literal["earliest", "latest"]

MAX_PARTS = 6
_QUOTED = re.compile(r"`([^`\n]+)`|\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)")
_CODE = re.compile(r"`[^`\n]+`")
_NAME = r"(?:[A-Z0-9@.<#][\w.()@<>/#+-]*)(?: (?:[A-Z0-9][\w.()@<>/#+-]*))*"
_ITEM = rf"(?:`[^`\n]+`|\"[^\"\n]+\"|“[^”\n]+”|(?<!\w){_NAME})"
_CHOICE = re.compile(rf"({_ITEM})((?:\s*,\s*(?:the )?{_ITEM})*)\s*,?\s+(?:or|than|versus|vs\.?)\s+(?:the )?({_ITEM})")
_THAN = re.compile(rf"({_ITEM})\s+(?:[a-z]+\s+){{0,3}}(?:older|newer|earlier|later|sooner)\s+than\s+(?:the )?({_ITEM})")
_TAIL = re.compile(r"[:,]\s*([^:,?]+?)\s*,?\s+or\s+([^:,?]+?)\s*\?*\s*$")
_BETWEEN = re.compile(r"\bbetween\s+(?:the )?([^,?]+?)\s+and\s+(?:the )?([^,?]+?)(?=[,?]|$)", re.IGNORECASE)
_LINK = re.compile(r"\b(?:or|and|than|versus|vs)\b", re.IGNORECASE)
_OPENING = re.compile(
    r"(?:Are|Can|Could|Did|Do|Does|Has|Have|How|In|Is|Of|On|Was|Were|What|When|Where|Which|Who|Will)\s+"
)
_CLAUSE = re.compile(
    r"\s*(?:;|,?\s+\b(?:and|then)\b)\s+"
    r"(?=(?:who|what|which|when|where|why|how|whose|in which|since|from which|is|are|does|did)\b)",
    re.IGNORECASE,
)
_REFERS = re.compile(r"\b(?:each|that|those|this|these|it|its|they|their|them|he|his|she|her)\b", re.IGNORECASE)
_EARLIEST = re.compile(r"\b(?:first|earlier|earliest|before|older|oldest|sooner|soonest)\b", re.IGNORECASE)
_LATEST = re.compile(r"\b(?:last|later|latest|after|newer|newest|most recent(?:ly)?)\b", re.IGNORECASE)


def find_named(question: str) -> tuple[str, ...]:
    """What stands in backticks or quotation marks, in order, once each."""
    found = (next(group for group in match.groups() if group) for match in _QUOTED.finditer(question))
    return tuple(dict.fromkeys(name.strip() for name in found if name.strip()))


def find_alternatives(question: str) -> tuple[str, ...]:
    """The things that a question sets against each other; empty when there are fewer than two."""
    if len(split_clauses(question)) > 1:
        return ()
    named, ordered = find_named(question), find_direction(question) is not None
    if len(named) > 1 and (ordered or _LINK.search(question)):
        return named
    choice = _CHOICE.search(question)
    if choice:
        first, more, last = choice.groups()
        return _named_once([first, *re.findall(_ITEM, more), last])
    patterns = (_THAN, _BETWEEN, _TAIL) if ordered else (_THAN, _TAIL)
    found = next((match for pattern in patterns if (match := pattern.search(question))), None)
    return _named_once(list(found.groups())) if found else ()


def find_direction(question: str) -> Direction | None:
    """Whether the question asks for what came first or for what came last."""
    if _EARLIEST.search(question):
        return "earliest"
    return "latest" if _LATEST.search(question) else None


def query_words(question: str) -> str:
    """The words of the question that carry meaning, as they are written, once each; code in backticks stays
    whole and first, since its parts alone may be stop words (`` `:is()` ``)."""
    words: dict[str, str] = {}
    for match in _CODE.finditer(question):
        words.setdefault(match.group(), match.group())
    rest = _CODE.sub(" ", question)
    for match in find_words(rest):
        if is_content(rest, match):
            words.setdefault(fold(match.group()), match.group())
    return " ".join(words.values())


def context_words(question: str, alternatives: tuple[str, ...]) -> str:
    """The meaningful words outside the alternatives and without those that only order them."""
    rest = question
    for name in alternatives:
        rest = rest.replace(f"`{name}`", " ").replace(name, " ")
    return query_words(_LATEST.sub(" ", _EARLIEST.sub(" ", rest)))


def split_question(question: str) -> list[str]:
    """Sub-queries that can be asked at once: one for each alternative (`when ...` if the question is which was
    first or last), or one for each clause, or the whole question when it is one, or when its clauses refer
    back (`that`, `its`)."""
    alternatives = find_alternatives(question)
    if alternatives:
        context = context_words(question, alternatives)
        names = [f"`{name}`" if f"`{name}`" in question else name for name in alternatives]
        asks = "when " if find_direction(question) else ""
        return [f"{asks}{name} {context}".strip() for name in names[:MAX_PARTS]]
    clauses = split_clauses(question)
    return [question.strip()] if is_chained(clauses) else clauses


def is_chained(clauses: list[str]) -> bool:
    """Whether a later clause refers back, so that it can only be asked once the one before is answered."""
    return any(_REFERS.search(clause) for clause in clauses[1:])


def split_clauses(question: str) -> list[str]:
    """The questions that a question strings together with `and` or `;`: itself when there is only one."""
    clauses = [clause.strip(" ?.,") for clause in _CLAUSE.split(question)]
    clauses = [clause for clause in clauses if content_terms(clause)][:MAX_PARTS]
    lost = [clause for clause in clauses if len(content_terms(clause)) < 2 and not _REFERS.search(clause)]
    if len(clauses) < 2 or lost:
        return [question.strip()] if question.strip() else []
    return clauses


def carry_names(told: str, clause: str, question: str) -> str:
    """A clause that refers back, with the names that a text tells and the question does not know."""
    if not _REFERS.search(clause):
        return clause
    names = [name for name in find_names(told) if name not in question and not name[0].isdigit()]
    return f"{clause} {' '.join(names)}".strip()


def _named_once(names: list[str]) -> tuple[str, ...]:
    bare = (_OPENING.sub("", name).strip(" `\"“”'?,").rstrip(".") for name in names)
    found = tuple(dict.fromkeys(name for name in bare if name))
    return found if len(found) > 1 else ()


def find_names(text: str) -> list[str]:
    """What is quoted or stands in backticks, and words with a capital or digit that open no sentence."""
    named = list(find_named(text))
    for match in re.finditer(_NAME, _QUOTED.sub(" ", text)):
        name = match.group().rstrip(".")
        if fold(name) not in STOP_WORDS and (match.start() or name[0].isdigit()):
            named.append(name)
    return list(dict.fromkeys(named))
