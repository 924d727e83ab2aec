"""Text out of HTML and PDF, with HTML headings kept as `#` lines so that passages can follow them.

Knows bytes and text only: no folder, no ids. What cannot be read is a ValueError that says why.
"""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import NamedTuple

from pypdf import PdfReader
from pypdf.errors import PyPdfError

_PDF_FAULTS = (PyPdfError, ArithmeticError, AttributeError, LookupError, TypeError, RecursionError)
MAX_PAGES = 5_000
"""Pages of a PDF that are read."""


class Extract(NamedTuple):
    """What a file says; `title` is empty when the file names none."""

    title: str
    text: str


_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_SILENT = frozenset({"script", "style", "template", "noscript", "svg", "math", "head"})
_BLOCKS = frozenset(
    """
    address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure footer form
    header hr li main nav ol p pre section summary table tbody tfoot thead tr ul
    """.split()
) | _HEADINGS  # fmt: skip
_BLANKS = re.compile(r"[ \t\r\f\v\n\u00a0]+")
_GAPS = re.compile(r"\n{3,}")


class _Reader(HTMLParser):
    """Collects the visible text; blocks end lines, cells are set apart by a bar."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self.silenced: list[str] = []
        self.in_title = False
        self.preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self.in_title = True
        elif tag in _SILENT:
            self.silenced.append(tag)
        elif tag == "body":
            self.silenced.clear()
        elif not self.silenced:
            self._open_block(tag)

    def _open_block(self, tag: str) -> None:
        if tag in _HEADINGS:
            self.parts.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag in _BLOCKS:
            self.parts.append("\n" if tag in ("br", "tr") else "\n\n")
        self.preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self.in_title = False
        elif tag in self.silenced:
            del self.silenced[self.silenced.index(tag) :]
        elif not self.silenced and tag in _BLOCKS:
            self.parts.append("\n" if tag in ("li", "tr") else "\n\n")
            self.preformatted = max(0, self.preformatted - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self.in_title:
            self.title.append(data)
        elif not self.silenced:
            self.parts.append(data if self.preformatted else _BLANKS.sub(" ", data))


def extract_html(source: str) -> Extract:
    """The visible text of a page: no scripts, no styles, one blank line between blocks."""
    reader = _Reader()
    source = _drop_comments(source)
    end = source.rfind(">") + 1
    reader.feed(source[:end] + source[end:].replace("<", "&lt;"))
    reader.close()
    lines = (line.rstrip().removeprefix(" ") for line in "".join(reader.parts).split("\n"))
    text = _GAPS.sub("\n\n", "\n".join(lines)).strip()
    return Extract(_BLANKS.sub(" ", "".join(reader.title)).strip(), text)


def _drop_comments(source: str) -> str:
    """The source without comments; one without an end is only unmarked, as the parser is slow with those."""
    kept, begin = [], 0
    while (start := source.find("<!--", begin)) >= 0 and (end := source.find("-->", start + 4)) >= 0:
        kept.append(source[begin:start])
        begin = end + 3
    return "".join(kept) + source[begin:].replace("<!--", " ")


def extract_pdf(data: bytes) -> Extract:
    """The text layer of a PDF, pages set apart by a blank line. ValueError when it has none or is broken."""
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("the PDF is encrypted; save it without a password")
        pages = [page.extract_text() for page, _ in zip(reader.pages, range(MAX_PAGES), strict=False)]
        title = str(reader.metadata.title or "") if reader.metadata else ""
    except _PDF_FAULTS as error:
        raise ValueError(f"the PDF is broken: {type(error).__name__}: {error}") from error
    text = "\n\n".join(page.strip() for page in pages if page.strip()).replace("\0", "")
    if not text:
        raise ValueError("the PDF has no text layer; run a text recognition over it")
    return Extract(title.strip(), text)
