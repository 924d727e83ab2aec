"""A project's profiles: what they add, and that nothing that holds a sandbox in gets looser on the way."""

from __future__ import annotations

from typing import Any

import pytest

from retinue.sandbox.extending import Extension, narrowed, profiles_of
from retinue.sandbox.profiles import BUILD, MIB, SHIPPED, STRICT, UNCONFINED, Profile

pytestmark = [pytest.mark.promise("E4")]


def resolved(**declared: dict[str, Any]) -> dict[str, Profile]:
    return profiles_of({name: Extension.model_validate(values) for name, values in declared.items()})


def test_a_chain_adds_up() -> None:
    found = resolved(
        web={"extends": "wide", "hosts": ["b.example.org:8443", "a.example.org"], "reads": ["/usr/share/dict"]},
        wide={"extends": "build", "hosts": ["a.example.org"], "limits": {"memory": "2GiB", "disk": None}},
        shut={"extends": "web", "network": "none", "limits": {"seconds": "5m"}},
    )
    assert found["web"].hosts == ("a.example.org", "b.example.org:8443") and found["web"].network == "listed"
    assert found["web"].limits.memory == 2048 * MIB and found["web"].limits.disk is None
    assert found["web"].limits.files == BUILD.limits.files
    assert found["shut"].hosts == () and found["shut"].network == "none" and found["shut"].limits.seconds == 300
    assert found["shut"].reads == ("/usr/share/dict",) and found["shut"].limits.memory == 2048 * MIB
    assert {name: found[name] for name in SHIPPED} == SHIPPED


def test_who_extends_unconfined_is_and_says_so() -> None:
    found = resolved(mine={"extends": "unconfined", "limits": {"seconds": 5}})
    assert not found["mine"].confined and found["mine"].network == "host"
    assert found["mine"].digest != UNCONFINED.digest != STRICT.digest


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"a": {"extends": "strict", "confined": False}}, "a.confined: 'strict' is confined"),
        ({"a": {"extends": "b"}, "b": {"extends": "build", "confined": False}}, "b.confined"),
        ({"a": {"extends": "unconfined", "confined": True}}, "extend `strict` or `build`"),
        ({"a": {"extends": "build", "network": "host"}}, "more than the listed of 'build': extend unconfined"),
        ({"a": {"extends": "strict", "network": "listed"}}, "extend build"),
        ({"a": {"extends": "strict", "hosts": ["x.org"]}}, "they hold for network `listed`"),
        ({"a": {"extends": "b"}, "b": {"extends": "a"}}, "in a circle: a -> b -> a"),
        ({"a": {"extends": "a"}}, "in a circle"),
        ({"a": {"extends": "strickt"}}, "did you mean strict"),
        ({"strict": {"extends": "build"}}, "is shipped"),
        ({"A b": {"extends": "build"}}, "is no name of a profile"),
    ],
)
def test_what_loosens_or_leads_nowhere_is_refused(declared: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resolved(**declared)


@pytest.mark.parametrize(
    "values",
    [
        {"hosts": ["https://x.org"]},
        {"hosts": ["x.org:0"]},
        {"hosts": ["*"]},
        {"hosts": ["a..b"]},
        {"hosts": ["*.127.0.0.1"]},
        {"hosts": ["x.org:70000"]},
        {"reads": ["data"]},
        {"reads": ["/a/../etc"]},
        {"limits": {"memory": "1KiB"}},
        {"limits": {"seconds": None}},
        {"limit": {}},
    ],
)
def test_values_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Extension.model_validate({"extends": "build"} | values)


def test_a_manifest_lowers_limits_and_never_raises_one() -> None:
    changes = Extension.model_validate({"extends": "x", "limits": {"memory": "64MiB", "seconds": 10}}).limits
    assert narrowed(STRICT, changes).limits.memory == 64 * MIB
    assert narrowed(STRICT, changes).limits.files == STRICT.limits.files
    for wider in ({"memory": "1GB"}, {"memory": "2GiB"}, {"files": None}, {"processes": 257}):
        wide = Extension.model_validate({"extends": "x", "limits": wider}).limits
        if wider == {"memory": "1GB"}:
            assert narrowed(STRICT, wide).limits.memory == 10**9
            continue
        with pytest.raises(ValueError, match="more than the"):
            narrowed(STRICT, wide)
