"""Facts: values by kind, paths and hosts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.policy.facts import MAX_DEPTH, MAX_LEAVES, Unclear, find_hosts, normalize_path, sort_values


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (5, {"numbers": 5, "decimals": "5.0000"}),
        (5.0, {"numbers": 5, "decimals": "5.0000"}),
        (5.5, {"decimals": "5.5000"}),
        (-0.00001, {"decimals": "-0.0000"}),
        (2**63, {}),
        (-(2**63), {"numbers": -(2**63)}),
        (10**400, {}),
        (float("nan"), {}),
        (float("inf"), {}),
        (True, {"flags": True}),
        ("a", {"texts": "a", "paths": "a", "hosts": ()}),
        ("", {"texts": "", "hosts": ()}),
        ("a\0b", {"texts": "a\0b", "hosts": ()}),
        (object(), {}),
    ],
)
def test_a_value_is_of_the_kinds_it_fits(value: object, kinds: dict[str, object]) -> None:
    facts = sort_values({"v": value})
    assert {kind: found["v"] for kind, found in facts.kinds.items() if "v" in found} == kinds
    assert facts.names == {"v"}


def test_null_is_absent() -> None:
    assert sort_values({"v": None}).names == set()


def test_nested_values_are_named_by_their_path() -> None:
    facts = sort_values(
        {"customer": {"country": "PE"}, "tags": ["b", "a", "b"], "items": [{"price": 3}, {"price": 7.5}], "no": []}
    )
    assert facts.kinds["texts"] == {"customer.country": "PE"}
    assert facts.kinds["lists"] == {"tags[]": ("a", "b"), "no[]": ()}
    assert facts.kinds["numbers"] == {
        "tags[].count": 3,
        "items[].price.count": 2,
        "items[].price.min": 3,
        "no[].count": 0,
    }
    assert facts.kinds["decimals"]["items[].price.max"] == "7.5000"


@pytest.mark.parametrize(
    "values",
    [
        {"a.b": 1, "a": {"b": 2}},
        {"a[]": 1, "a": [2]},
        {"a[].count": 900, "a": [2]},
        {"a": [1, {"count": [5]}], "a[].count": 7},
    ],
)
def test_two_values_of_one_name_are_of_no_kind(values: dict[str, Any]) -> None:
    facts = sort_values(values)
    clashing = facts.find_unsorted()
    assert clashing
    assert not any(name in found for name in clashing for found in facts.kinds.values())


def test_what_is_too_deep_or_too_much_is_unclear() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    with pytest.raises(Unclear, match="deeper than 32"):
        sort_values(deep)
    with pytest.raises(Unclear, match="more than 10,000"):
        sort_values({"a": [1] * (MAX_LEAVES + 1)})


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/srv/data/../../etc/passwd", "/etc/passwd"),
        ("//etc/passwd", "/etc/passwd"),
        ("///etc//./passwd", "/etc/passwd"),
        ("file:///etc/passwd", "/etc/passwd"),
        ("FILE://localhost/etc/%70asswd", "/etc/passwd"),
        ("file:/etc/passwd", "/etc/passwd"),
        ("a/../../b", "../b"),
        ("./a/", "a"),
        ("~/.ssh/id", "~/.ssh/id"),
        ("", None),
        ("a\0", None),
    ],
)
def test_paths_are_normalised_by_their_letters(text: str, path: str | None) -> None:
    assert normalize_path(text) == path


@given(st.text("abc/.", min_size=1))
def test_a_normalised_path_never_climbs_out_of_where_it_seems_to_be(text: str) -> None:
    path = normalize_path("/srv/" + text)
    assert path is not None
    assert "/../" not in path and "//" not in path and not path.endswith("/..")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("no address", set()),
        ("HTTPS://Example.ORG:8443/a?b", {"example.org"}),
        ("https://good.example@evil.example/", {"evil.example"}),
        ("see http://a.example, and (https://b.example).", {"a.example", "b.example"}),
        ("//cdn.example/x", {"cdn.example"}),
        ("http://[::1]:80/", {"[::1]"}),
        ("https://bücher.example/", {"xn--bcher-kva.example"}),
        ("https://example.org.", {"example.org"}),
        ("a // b", set()),
        ("http://good.example\\@evil.example", None),
        ("http:\\\\evil.example", None),
        ("https:evil.example", None),
        ("http:/evil.example", None),
        ("http://good.example\n.evil.example/", None),
        ("http://go%6Fd.example/", None),
    ],
)
def test_hosts_of_addresses(text: str, hosts: set[str] | None) -> None:
    assert find_hosts(text) == hosts


def test_an_unclear_address_makes_the_hosts_unclear() -> None:
    facts = sort_values({"url": "https:evil.example", "other": ["https://a.example"]})
    assert not facts.hosts_clear
    assert facts.kinds["hosts"] == {"other[]": ("a.example",)}
