"""Forms of servers: an answer that is none says which field, what it is, and what to give."""

from __future__ import annotations

from typing import Any

import pytest

from retinue.runs import forms
from retinue.runs.errors import InvalidInput

pytestmark = pytest.mark.promise("D4")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 5},
        "mail": {"type": "string", "format": "email"},
        "site": {"type": "string", "format": "uri"},
        "born": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "price": {"type": "number", "minimum": 0.5},
        "member": {"type": "boolean", "default": False},
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "size": {"oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]},
        "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "enum": ["a", "b"]}},
    },
    "required": ["name"],
}


def test_an_answer_is_taken_with_its_defaults() -> None:
    given = {"name": "Ana", "mail": "a@b", "site": "https://a.b", "born": "2000-02-29", "at": "2026-11-21T14:00:00Z"}
    given |= {"age": 7, "price": 1, "colour": "red", "size": "l", "tags": ["a"]}
    assert forms.check(SCHEMA, given) == given | {"member": False}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Ana", "is no JSON object: give the fields name,"),
        ({}, "field 'name' is missing: give a text"),
        ({"name": 7}, "field 'name' is 7: give a text"),
        ({"name": "A"}, "give at least 2 characters"),
        ({"name": "Anabel"}, "give at most 5 characters"),
        ({"name": "Ana", "nick": "A"}, "field 'nick' is not asked for: the fields are name, mail"),
        ({"name": "Ana", "mail": "ana"}, "field 'mail' is 'ana': give an address such as ana@example.com"),
        ({"name": "Ana", "site": "example"}, "give an address such as https://example.com"),
        ({"name": "Ana", "born": "21.11."}, "give a date such as 2026-11-21"),
        ({"name": "Ana", "at": "noon"}, "give a time such as"),
        ({"name": "Ana", "age": 1.5}, "field 'age' is 1.5: give a whole number"),
        ({"name": "Ana", "age": True}, "field 'age' is True: give a whole number"),
        ({"name": "Ana", "price": float("inf")}, "give a number"),
        ({"name": "Ana", "age": -1}, "give at least 0"),
        ({"name": "Ana", "age": 121}, "give at most 120"),
        ({"name": "Ana", "price": "1"}, "field 'price' is '1': give a number"),
        ({"name": "Ana", "member": "yes"}, "give true or false"),
        ({"name": "Ana", "colour": "green"}, "field 'colour' is 'green': give one of red, blue"),
        ({"name": "Ana", "size": "m"}, "give one of s, l"),
        ({"name": "Ana", "tags": "a"}, "give a list, each one of a, b"),
        ({"name": "Ana", "tags": ["c"]}, "give one of a, b"),
        ({"name": "Ana", "tags": ["a", "b", "a"]}, "give at most 2"),
    ],
)
def test_what_is_no_answer_says_what_to_give(given: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        forms.check(SCHEMA, given)
    assert said in str(caught.value)


@pytest.mark.parametrize("strange", [None, 7, {"properties": [1]}, {"properties": {"a": 1}}, {"required": "a"}])
def test_a_schema_that_is_none_asks_for_nothing(strange: Any) -> None:
    assert forms.check(strange, {}) == {} and forms.example(strange) == {}


def test_a_text_is_the_one_field_of_a_form() -> None:
    one = {"properties": {"age": {"type": "integer"}}}
    assert forms.from_text(one, "7") == {"age": 7}
    assert forms.from_text({"properties": {"ok": {"type": "boolean"}}}, "Yes") == {"ok": True}
    assert forms.from_text(SCHEMA, "Ana") == {"name": "Ana"}, "the only one that must be given"
    with pytest.raises(InvalidInput, match=r"the fields a \(a text\), b \(a number\)"):
        forms.from_text({"properties": {"a": {"type": "string"}, "b": {"type": "number"}}}, "x")


def test_an_example_of_an_answer_is_one() -> None:
    whole = {"type": "object", "properties": SCHEMA["properties"]}
    flat = {name: field for name, field in whole["properties"].items() if "format" not in field and name != "price"}
    assert forms.check({"properties": flat}, forms.example({"properties": flat}))
