"""Passages: a document cut along its headings and paragraphs into pieces that one search hit can show.

Pure: a text in, spans out. Every passage is an exact piece of the document's text. Knows no index.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from retinue.runs.contracts import Frozen
from retinue.runs.lexical import Span, split_sentences

TARGET_CHARS = 1_200
"""Paragraphs, and whole sections that are short, are joined up to this length."""
LONE_CHARS = 160
"""What is shorter, a heading above all, does not stand alone when what follows has room for it."""
MAX_CHARS = 1_500
"""A longer paragraph is cut at its sentences, a longer sentence at a blank."""


class Passage(Frozen):
    """A piece of a document: `text == document.text[start:end]`.

    `trail` holds the headings above it, outermost first; `score` grows with relevance, 0 outside a search.
    """

    document_id: str
    title: str
    start: int
    end: int
    trail: tuple[str, ...] = ()
    text: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a passage lies in its text, and the headings above it."""

    start: int
    end: int
    trail: tuple[str, ...]


_HEADING = re.compile(
    r"^(?P<fence>```|~~~)[^\n]*\n.*?^(?P=fence)[^\n]*$"
    r"|^(?P<marks>#{1,6})[ \t]+(?P<name>[^\n]+)$"
    r"|^(?P<under>[^\s#|>\-=~*+][^\n]{0,118})\r?\n(?P<char>[=\-~^*+])(?P=char){2,}[ \t]*\r?$",
    re.MULTILINE | re.DOTALL,
)
_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n\s*")


def split_passages(text: str) -> list[Piece]:
    """Pieces in order, none overlapping, together covering all but blanks; a heading is part of what follows."""
    pieces: list[Piece] = []
    for section in _split_sections(text):
        blocks = list(_split_blocks(text, section))
        whole = Piece(blocks[0][0], blocks[-1][1], section.trail)
        if pieces and whole.end - pieces[-1].start <= TARGET_CHARS:
            pieces[-1] = Piece(pieces[-1].start, whole.end, _common(pieces[-1].trail, whole.trail))
        else:
            pieces += [Piece(start, end, section.trail) for start, end in _join_blocks(blocks)]
    return pieces


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    length = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _split_sections(text: str) -> Iterator[Piece]:
    begin, trail = 0, list[tuple[int, str]]()
    lines: list[str] = []
    for heading in _HEADING.finditer(text):
        if heading.group("fence"):
            continue
        if text[begin : heading.start()].strip():
            yield Piece(begin, heading.start(), tuple(name for _, name in trail))
        begin = heading.start() if text[begin : heading.start()].strip() or not trail else begin
        level = _level_of(heading, lines)
        name = (heading.group("name") or heading.group("under")).rstrip("# \t\r")
        trail = [*(entry for entry in trail if entry[0] < level), (level, name)]
    if text[begin:].strip():
        yield Piece(begin, len(text), tuple(name for _, name in trail))


def _level_of(heading: re.Match[str], lines: list[str]) -> int:
    """Marks give the level; an underline gets one by the order in which its character first appears."""
    if heading.group("marks"):
        return len(heading.group("marks"))
    char = heading.group("char")
    if char not in lines:
        lines.append(char)
    return lines.index(char) + 1


def _split_blocks(text: str, section: Piece) -> Iterator[Span]:
    begin = section.start
    for gap in _PARAGRAPH_END.finditer(text, section.start, section.end):
        yield from _cut(text, begin, gap.start())
        begin = gap.end()
    yield from _cut(text, begin, section.end)


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    """A block without its outer blanks, in parts of at most MAX_CHARS that end with a sentence if they can."""
    block = text[start:end]
    start, end = start + len(block) - len(block.lstrip()), start + len(block.rstrip())
    if end - start <= MAX_CHARS:
        if start < end:
            yield start, end
        return
    begin = stop = start
    for _, offset in split_sentences(text[start:end]):
        if start + offset - begin > TARGET_CHARS and stop > begin:
            yield from _chop(text, begin, stop)
            begin = stop
        stop = start + offset
    yield from _chop(text, begin, end)


def _chop(text: str, start: int, end: int) -> Iterator[Span]:
    start = end - len(text[start:end].lstrip())
    while end - start > MAX_CHARS:
        blank = text.rfind(" ", start + TARGET_CHARS, start + MAX_CHARS)
        stop = blank if blank > start else start + MAX_CHARS
        yield start, stop
        start = end - len(text[stop:end].lstrip())
    if start < end:
        yield start, end


def _join_blocks(blocks: list[Span]) -> Iterator[Span]:
    joined: Span | None = None
    for block in blocks:
        if joined and block[1] - joined[0] <= (MAX_CHARS if joined[1] - joined[0] < LONE_CHARS else TARGET_CHARS):
            joined = (joined[0], block[1])
        else:
            if joined:
                yield joined
            joined = block
    if joined:
        yield joined
