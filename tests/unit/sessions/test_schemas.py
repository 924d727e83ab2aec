"""Schemas that servers give: what fits is told from what does not, and no schema takes for ever."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from retinue.sessions.schemas import Schema, TooMuchWork

DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}


@pytest.mark.parametrize(
    ("schema", "good", "bad", "keyword"),
    [
        ({"type": "integer"}, 3, "3", "type"),
        ({"type": ["string", "null"]}, None, 1, "type"),
        ({"required": ["a"]}, {"a": 1}, {}, "required"),
        ({"properties": {"a": {"type": "string"}}, "additionalProperties": False}, {"a": "x"}, {"b": 1}, None),
        ({"properties": {"pattern": {"type": "string"}}}, {"pattern": "x"}, {"pattern": 1}, "type"),
        ({"enum": ["a", "b"]}, "a", "c", "enum"),
        ({"items": {"type": "integer"}}, [1], ["a"], "type"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 1, None, "anyOf"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, "x", 1, "type"),
        (DRAFT_7 | {"$ref": "#/definitions/a b", "definitions": {"a b": {"type": "string"}}}, "x", 1, "type"),
        (DRAFT_7 | {"items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", 1], "items"),
        ({"minimum": 3, "exclusiveMinimum": True}, 4, 3, "exclusiveMinimum"),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 1}], "uniqueItems"),
        ({"not": {"type": "string"}}, 1, "a", "not"),
    ],
)
def test_what_fits_is_told_from_what_does_not(schema: Any, good: Any, bad: Any, keyword: str | None) -> None:
    judge = Schema(schema)
    assert judge.problems(good) == []
    found = [problem.keyword for problem in judge.problems(bad)]
    assert found == [keyword or "additionalProperties"]


@pytest.mark.promise("D4")
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "pattern": "(a+)+$"}, "a" * 60 + "!"),
        ({"patternProperties": {"(a+)+$": {"type": "string"}}}, {"a" * 60 + "!": 1}),
        ({"type": "string", "format": "regex"}, "(" * 100),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"xa": 1}),
    ],
)
def test_no_expression_of_a_server_is_run(schema: Any, value: Any) -> None:
    began = time.process_time()
    assert Schema(schema).problems(value) == []
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "reference", ["https://evil.example/schema", "file:///etc/passwd", "#nowhere", "#/properties", "x"]
)
def test_a_reference_never_leaves_its_schema(reference: str) -> None:
    schema = {"$ref": reference, "properties": {"minimum": {"type": "string"}}}
    assert Schema(schema).problems({"minimum": "x"}) == []


def doubling(levels: int) -> dict[str, Any]:
    """Each level asks two of the next: a web of 2**levels questions."""
    below = {f"n{n}": {"anyOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/n0", "$defs": below | {f"n{levels}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, {}),
        (doubling(40), 1),
        (
            {"allOf": [{"additionalProperties": {"allOf": [{"type": "integer"}] * 50}}] * 200},
            {str(n): 1 for n in range(200)},
        ),
    ],
    ids=["itself", "doubling", "many times"],
)
def test_work_without_end_is_given_up(schema: Any, value: Any) -> None:
    judge = Schema(schema)
    began = time.process_time()
    with pytest.raises(TooMuchWork):
        judge.problems(value)
    assert time.process_time() - began < 20


def test_depth_and_nonsense_judge_nothing_and_break_nothing() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(900):
        deep = {"properties": {"a": deep}}
    assert Schema(deep).problems({"a": {"a": 1}}) == []
    for nonsense in ({"enum": "abc"}, {"minimum": "x"}, {"required": 3}, {"multipleOf": 0}):
        assert Schema(nonsense).problems({"x": 1}) == Schema(nonsense).problems(3) == []
    for ignored in ({"type": "any"}, {"type": [{}]}, {"properties": []}, {"items": 3}, {"allOf": {}}):
        assert Schema(ignored).problems([1]) == []


def test_threads_that_judge_at_once_have_a_bound_each() -> None:
    judge = Schema({"items": {"allOf": [{"type": "integer"}] * 7}})
    values = [list(range(3_000))] * 8
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(judge.problems, values)) == [[]] * 8


def test_a_large_list_is_judged_to_its_end() -> None:
    judge = Schema({"type": "array", "items": {"type": "integer", "minimum": 0}})
    assert judge.problems(list(range(20_000))) == []
    [problem] = judge.problems([*range(20_000), "x"])
    assert problem.place == (20_000,)
