"""JSON in pieces is the JSON of the whole, and no piece is large."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from retinue.runs import piecewise
from retinue.runs.piecewise import dump, load, plain
from retinue.runs.replay import private

TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(["\ud83d\ude00", "a\udcff/b", "\n:"])
NAMES = TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.tuples(st.integers(), st.text())
LONG = st.sampled_from([400, 4_300, 4_999]).map(lambda digits: -(10**digits))
LEAVES = NAMES | LONG | st.dates() | st.decimals()
VALUES = st.recursive(
    LEAVES,
    lambda parts: st.lists(parts) | st.dictionaries(NAMES, parts) | st.tuples(parts, parts),
    max_leaves=12,
)


def some(dice: random.Random, depth: int) -> Any:
    """Any JSON value, of many sizes."""
    kind = dice.choice("[[{{sn0tf") if depth else dice.choice("sn0tf")
    if kind == "[":
        return [some(dice, depth - 1) for _ in range(dice.choice((0, 1, 2, 9)))]
    if kind == "{":
        return {
            f"k{n}:\n{chr(dice.randrange(32, 900))}": some(dice, depth - 1) for n in range(dice.choice((0, 1, 2, 9)))
        }
    if kind == "s":
        text = dice.choice(("", "a:", "[", "]", ",", "\n", '"', "\U0001f600é\\"))
        return text * dice.choice((1, 3, 40))
    return {"n": None, "0": dice.choice((0, -1, 1.5, 2**53)), "t": True, "f": False}[kind]


@pytest.mark.parametrize("piece", [1, 2, 16, 100, piecewise.PIECE])
def test_pieces_are_the_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "PIECE", piece)
    dice = random.Random(piece)
    for _ in range(400):
        value = some(dice, 5)
        text = dump(value)
        assert from_json(text) == load(text) == value
        assert plain(value) == (value, to_json(value))


def test_others_texts_are_read_too() -> None:
    for value in ([1, {"a": [2, "x"]}], {"a": {"b": [1]}}, "x", [], {}):
        for text in (to_json(value), to_json(value, indent=2)):
            assert load(text) == value
    with pytest.raises(ValueError, match="EOF"):
        load(b"[\n1,2")


def test_tuples_and_what_only_serialises_become_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "PIECE", 4)
    assert plain({"a": (1, 2, (3, "four"))}) == ({"a": [1, 2, [3, "four"]]}, b'{"a":[1,2,[3,"four"]]}')
    assert load(dump({1: "one", 2: "two"})) == {"1": "one", "2": "two"}
    assert plain([float("nan"), float("inf")]) == ([None, None], b"[null,null]")
    assert dump([float("nan"), float("inf")]) == to_json([float("nan"), float("inf")])
    with pytest.raises(ValueError, match="surrogates not allowed"):
        plain(["x", "\ud800" * 9])
    assert load(dump(["x", "\ud800" * 9])) == ["x", "\ud800" * 9]


def test_a_large_value_is_made_of_small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def made(value: Any, **options: Any) -> bytes:
        sizes.append(len(to_json(value, **options)))
        return to_json(value, **options)

    def read(text: bytes) -> Any:
        sizes.append(len(text))
        return from_json(text)

    monkeypatch.setattr(piecewise, "to_json", made)
    monkeypatch.setattr(piecewise, "from_json", read)
    rows = [{"id": n, "name": "of some length", "tags": ["a", "b"]} for n in range(60_000)]
    value = {"rows": rows, "by": {str(n): row for n, row in enumerate(rows)}, "text": ["x" * 1_000] * 3_000}
    assert load(dump(value)) == plain(value)[0] == value
    assert sum(sizes) > 20_000_000 and max(sizes) < 2 * piecewise.PIECE


@pytest.mark.promise("B2")
@settings(max_examples=150, deadline=None)
@given(value=VALUES, piece=st.sampled_from([1, 8, piecewise.PIECE]), deep=st.sampled_from([0, 0, 210]))
def test_a_value_is_the_same_live_and_on_replay(value: Any, piece: int, deep: int) -> None:
    for _ in range(deep):
        value = [value]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "PIECE", piece)
        assert same(private(value), load(dump(value)))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types; what is no number equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return bool(one == other or (one != one and other != other))


def test_what_is_no_json_is_refused_as_it_always_was() -> None:
    itself: list[Any] = ["\ud800"]
    itself.append(itself)
    for value in (object(), ["\ud800", object()], itself, {"a": {("\ud800", 1): 1}}):
        with pytest.raises(ValueError):
            dump(value)
