"""The pure parts of the HTTP clients: event streams, tool calls, schemas, prices."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.inference.dialect import parse_data, read_call
from retinue.inference.prices import Rates, Spent, Tiers, estimate_text, find_rates, flat_rates
from retinue.inference.schemas import close_objects, is_strict
from retinue.inference.sse import Decoder, Event

STREAM = (
    "\ufeffdata: one\r\n\r\n: a comment\nevent: tick\ndata: two\ndata:three \u2028 é\n\nid: 7\nretry: 1\n\ndata\n\n"
    "event: lost\n\ndata: four\r\r\n\ndata: unfinished\n"
).encode()
EVENTS = [Event("message", "one"), Event("tick", "two\nthree \u2028 é"), Event("message", ""), Event("message", "four")]


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=30))
def test_a_stream_decodes_the_same_however_it_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    decoder = Decoder()
    chunks = [STREAM[a:b] for a, b in pairwise(places)]
    assert [event for chunk in chunks for event in decoder.feed(chunk)] == EVENTS


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ("  ", {}),
        ('{"a": ', None),
        ("[]", None),
        ("null", None),
        ('{"a": NaN}', None),
        ("[" * 100_000, None),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ('{"a": "half \\ud83d"}', None),
        ('{"\\udc80": 1}', None),
    ],
)
def test_arguments_are_an_object_or_nothing(raw: str, arguments: object) -> None:
    call = read_call(None, "f", raw, 3)
    assert (call.id, call.arguments, call.raw) == ("call_3", arguments, raw)


def test_half_a_character_in_an_event_becomes_text_that_can_be_kept() -> None:
    assert parse_data(Event("message", '{"a": ["\\ud83d", "\\ud83d\\ude00"]}')) == {"a": ["?", "\U0001f600"]}


def test_strict_means_closed_and_complete() -> None:
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert is_strict(closed)
    assert is_strict({**closed, "$defs": {"x": closed}})
    assert not is_strict({**closed, "required": []})
    assert not is_strict({**closed, "$defs": {"x": {"type": "object", "properties": {}}}})
    assert not is_strict({"anyOf": [closed, {"type": "string", "default": "x"}]})


def test_closing_drops_only_what_is_refused_and_changes_no_free_object() -> None:
    schema: Any = {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "minimum": 1},
            "free": {"type": "object"},
            "many": {"type": "array", "minItems": 2, "items": {"type": "object", "properties": {}}},
        },
    }
    closed = close_objects(schema)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["minimum"] == {"type": "integer"}
    assert closed["properties"]["free"] == {"type": "object"}
    assert closed["properties"]["many"]["items"]["additionalProperties"] is False
    assert "minItems" not in closed["properties"]["many"]
    assert schema["properties"]["minimum"] == {"type": "integer", "minimum": 1}


def test_prices_are_exact_and_rounded_up() -> None:
    rates = flat_rates("0.15", "0.6")
    assert rates.micros(Spent(1_000_000, 1_000_000)) == 750_000
    assert rates.micros(Spent(1, 0)) == 1
    assert rates.micros(Spent(0, 0)) == 0


def test_tiers_and_cached_tokens_count() -> None:
    tiers = Tiers(((0, Decimal(3)), (200_000, Decimal(6))))
    rates = Rates(input=tiers, output=Tiers(((0, Decimal(15)),)), cache_read=Tiers(((0, Decimal("0.3")),)))
    assert rates.micros(Spent(200_000, 0)) == 600_000
    assert rates.micros(Spent(200_001, 0)) == 1_200_006
    assert rates.micros(Spent(1000, 10, cache_read=800)) == 200 * 3 + 240 + 150


def test_list_prices_are_found_offline_and_once() -> None:
    assert find_rates("gpt-4o-mini", "openai") is find_rates("gpt-4o-mini", "openai")
    assert find_rates("no-such-model", "openai") is None
    assert find_rates("no-such-model", None, "https://nowhere.example/v1") is None


def test_the_token_estimate_counts_bytes() -> None:
    assert [estimate_text(text) for text in ("", "abcd", "abcde", "é" * 4, "\ud800")] == [0, 1, 2, 2, 1]
