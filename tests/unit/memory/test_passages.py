"""Passages: exact pieces of a text, bounded, with the headings above them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from retinue.memory.passages import MAX_CHARS, TARGET_CHARS, split_passages

LONG = "One plain sentence of some words. " * 40


def test_short_sections_share_a_passage_and_long_ones_do_not() -> None:
    text = f"# Top\n\nIntro.\n\n## Short\n\nFew words.\n\n## Long\n\n{LONG}\n\n## Other\n\n{LONG}"
    pieces = split_passages(text)
    assert [piece.trail for piece in pieces] == [("Top",), ("Top", "Long"), ("Top", "Other")]
    assert text[pieces[0].start : pieces[0].end].endswith("Few words.")
    assert text[pieces[1].start : pieces[1].end].startswith("## Long")


def test_underlined_headings_have_the_level_of_their_line() -> None:
    text = f"Title\n=====\n\n{LONG}\n\nPart\n----\n\n{LONG}\n\nNext\n====\n\n{LONG}"
    assert [piece.trail for piece in split_passages(text)] == [("Title",), ("Title", "Part"), ("Next",)]


def test_a_fence_hides_its_hashes() -> None:
    text = f"# Top\n\n```\n# no heading\n```\n\n{LONG}"
    assert {piece.trail for piece in split_passages(text)} == {("Top",)}


def test_a_long_paragraph_is_cut_at_sentences() -> None:
    text = LONG * 4
    pieces = split_passages(text)
    assert len(pieces) > 3
    assert all(text[piece.start : piece.end].endswith(".") for piece in pieces)


@given(st.text(alphabet="ab. \n#=-`|", max_size=4_000) | st.text(alphabet="ab ", min_size=3_000, max_size=6_000))
def test_passages_are_bounded_ordered_and_lose_no_character(text: str) -> None:
    pieces = split_passages(text)
    kept = "".join(text[piece.start : piece.end] for piece in pieces)
    assert [char for char in kept if not char.isspace()] == [char for char in text if not char.isspace()]
    assert all(one.end <= other.start for one, other in pairwise(pieces))
    assert all(piece.end - piece.start <= max(MAX_CHARS, TARGET_CHARS) for piece in pieces)
