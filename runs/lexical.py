"""Words, stems and sentences of plain text: the lexical ground under recall and quoting.

Pure functions over strings; every span counts characters of the string that was given. Knows nothing of
documents, indexes, models or runs. Ranking built on it is in `runs/quoting.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

Span = tuple[int, int]

STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being both but by can could did do
    does doing done during each either else ever every for from further had has have having he her here hers
    him his how i if in into is it its itself just may me might more most much must my no nor not of off on
    once only or other our out over own same shall she should since so some such than that the their them then
    there these they this those through to too under until up upon us very was we were what when where whether
    which while who whom whose why will with within would you your
    """.split()
)

_WORD = re.compile(r"[^\W_]+")
_CODE_BEFORE = frozenset(".:@<#-`")
_CODE_AFTER = frozenset("(-`>")


def find_words(text: str) -> Iterator[re.Match[str]]:
    """The words of a text in order; `don't` gives `don` and `t`, `Array.at()` gives `Array` and `at`."""
    return _WORD.finditer(text)


def fold(word: str) -> str:
    """Lower case without diacritics, so that `Réunion` and `reunion` are one word."""
    if word.isascii():
        return word.lower()
    bare = unicodedata.normalize("NFKD", word)
    return "".join(char for char in bare if not unicodedata.combining(char)).casefold()


def is_content(text: str, word: re.Match[str]) -> bool:
    """Whether a word carries meaning. Stop words and single small letters do as parts of code: `:has()`."""
    found = word.group()
    if fold(found) not in STOP_WORDS and (len(found) > 1 or not found.islower()):
        return True
    before = text[word.start() - 1] if word.start() else " "
    after = text[word.end()] if word.end() < len(text) else " "
    return before in _CODE_BEFORE or after in _CODE_AFTER


def content_words(text: str) -> list[str]:
    """Folded, unstemmed words that carry meaning, in order, with repetitions."""
    return [fold(word.group()) for word in find_words(text) if is_content(text, word)]


def content_terms(text: str) -> list[str]:
    """Stemmed words that carry meaning, in order, with repetitions."""
    return [stem(word) for word in content_words(text)]


# --- sentences -------------------------------------------------------------------------------------------

_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st sr jr vs etc eg ie e.g i.e cf al fig figs eq vol pp ed eds inc ltd co corp
    dept est approx ca jan feb mar apr jun jul aug sep sept oct nov dec gen col sgt lt capt rev hon gov sen
    rep u.s u.k ph.d a.m p.m
    """.split()
)
MAX_SENTENCE_CHARS = 600
"""A longer sentence (code, a table without ends) is cut at a blank."""
_STOP = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+")
_BLOCK = re.compile(
    r"\n[ \t\r]*\n\s*"  # a blank line
    r"|\n(?=[ \t]*(?:[-*+•] |\d{1,3}[.)] |#{1,6} |\||>|```|~~~))"  # a list item, heading, table row, fence
    r"|(?<=\|)[ \t\r]*\n"  # the end of a table row
)
_HEADING = re.compile(r"[ \t]*#{1,6} [^\n]*")
_LAST_WORD = re.compile(r"(\S+)$")


def split_sentences(text: str) -> list[Span]:
    """Spans of the sentences of running text, headings, list items and table rows, without outer blanks."""
    sentences: list[Span] = []
    for start, end in _split_blocks(text):
        begin = start
        for stop in _STOP.finditer(text, start, end):
            if _ends_sentence(text, begin, stop, end):
                _append_trimmed(sentences, text, begin, stop.end())
                begin = stop.end()
        _append_trimmed(sentences, text, begin, end)
    return sentences


def _split_blocks(text: str) -> Iterator[Span]:
    begin = 0
    for mark in _BLOCK.finditer(text):
        yield from _split_heading(text, begin, mark.start())
        begin = mark.end()
    yield from _split_heading(text, begin, len(text))


def _split_heading(text: str, start: int, end: int) -> Iterator[Span]:
    heading = _HEADING.match(text, start, end)
    if heading and heading.end() < end:
        yield start, heading.end()
        start = heading.end()
    yield start, end


def _ends_sentence(text: str, begin: int, stop: re.Match[str], end: int) -> bool:
    if not stop.group().startswith("."):
        return True
    follow = text[stop.end() : min(end, stop.end() + 3)].lstrip("\"'“‘([ \t\r\n`*")[:1]
    if follow.islower():
        return False
    if stop.group() != ".":
        return True
    before = _LAST_WORD.search(text, max(begin, stop.start() - 24), stop.start())
    word = before.group(1).lower().lstrip("(\"'“‘[") if before else ""
    is_initial = len(word) == 1 and word.isalpha() and word != "i"
    return not (is_initial or word in _ABBREVIATIONS or (word in ("no", "nos") and follow.isdigit()))


def _append_trimmed(spans: list[Span], text: str, start: int, end: int) -> None:
    while end - start > MAX_SENTENCE_CHARS:
        stop = start + MAX_SENTENCE_CHARS
        gap = max(text.rfind("\n", start + 1, stop), text.rfind(" ", start + 1, stop))
        stop = gap if gap > start else stop
        _append_trimmed(spans, text, start, stop)
        start = stop
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end = start + len(piece.strip())
    if start < end:
        spans.append((start, end))


# --- stems: the algorithm of M. F. Porter, "An algorithm for suffix stripping" (1980) ----------------------

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able",
    "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate",
    "alism": "al", "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive",
    "biliti": "ble",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "sion", "tion", "ant", "ent", "ism", "ate", "iti", "ous",
    "ive", "ize", "al", "er", "ic", "ou",
)  # fmt: skip
_ORDER_2 = sorted(_STEP_2, key=len, reverse=True)
_ORDER_3 = sorted(_STEP_3, key=len, reverse=True)
_DOUBLE = re.compile(r"([^aeioulsz])\1$")
_SHORT_END = re.compile(r"[^aeiou][aeiouy][^aeiouwxy]$")
_MEASURE = re.compile(r"v+c+")


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The Porter stem of a folded English word; words with a digit or of fewer than three letters stay."""
    if len(word) < 3 or not word.isascii() or not word.isalpha():
        return word
    word = _strip_past(_strip_plural(word))
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _replace_suffix(word, _ORDER_2, _STEP_2)
    word = _replace_suffix(word, _ORDER_3, _STEP_3)
    return _strip_final_letter(_strip_long_suffix(word))


def _shape(part: str) -> str:
    """Each letter as `v` or `c`; a `y` after a consonant is a vowel."""
    shape = ""
    for letter in part:
        is_vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if is_vowel else "c"
    return shape


def _measure(part: str) -> int:
    return len(_MEASURE.findall(_shape(part)))


def _strip_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _strip_past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return _mend(rest) if "v" in _shape(rest) else word
    return word


def _mend(rest: str) -> str:
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _DOUBLE.search(rest):
        return rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _SHORT_END.search(rest) else rest


def _replace_suffix(word: str, order: list[str], table: dict[str, str]) -> str:
    for suffix in order:
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return rest + table[suffix] if _measure(rest) > 0 else word
    return word


def _strip_long_suffix(word: str) -> str:
    for suffix in _STEP_4:
        if word.endswith(suffix):
            cut = 3 if suffix in ("sion", "tion") else len(suffix)
            return word[:-cut] if _measure(word[:-cut]) > 1 else word
    return word


def _strip_final_letter(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _SHORT_END.search(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
