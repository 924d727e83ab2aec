"""The tests of this folder once more, as a user who is nobody in particular: as most hosts run."""

from __future__ import annotations

import os

import pytest
from tests.doubles.strangers import run_as_stranger

pytestmark = pytest.mark.promise("E4")

PYTEST = ("-m", "pytest", "-q", "-x", "-rs", "-p", "no:cacheprovider")


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user already")
@pytest.mark.parametrize(
    "module",
    [
        "test_confinement",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("test_execs", "test_limits", "test_launching")),
    ],
)
async def test_an_ordinary_user_has_the_same(module: str) -> None:
    words = [*PYTEST, f"tests/unit/sandbox/backends/{module}.py"]
    ran = await run_as_stranger(lambda mine: [*words, "--basetemp", f"{mine}/pytest"], 110)
    assert (ran.status, ran.stopped) == (0, ""), ran.out + ran.err
    assert " passed" in ran.out
