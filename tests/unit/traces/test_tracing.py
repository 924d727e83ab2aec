"""Span ids and trace context."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from retinue.runs.tracing import span_id_of, traceparent


@given(st.text(), st.text())
def test_span_ids_are_sixteen_hex_digits_and_follow_from_run_and_key(run_id: str, key: str) -> None:
    assert re.fullmatch("[0-9a-f]{16}", span_id_of(run_id, key))
    assert span_id_of(run_id, key) == span_id_of(run_id, key)
    assert span_id_of(run_id, key) != span_id_of(run_id, key + "x")


def test_a_known_span_id_never_changes() -> None:
    assert span_id_of("run-1", "0/model#0") == "466e6e9a54256fc0"


def test_traceparent_is_w3c() -> None:
    assert traceparent("a" * 32, "b" * 16) == f"00-{'a' * 32}-{'b' * 16}-01"
