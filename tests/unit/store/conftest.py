"""Stores to copy from and into."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.doubles.places import REAL, Place, Places
from tests.unit.store.copies import (
    Pair,
    fill,
    pair_of,
)


@pytest.fixture(scope="session")
def filled(places: Places) -> Iterator[dict[str, Place]]:
    """A filled place of each kind; filled once."""
    with places.new("sqlite") as one, places.new("postgres") as other:
        for place in (one, other):
            asyncio.run(fill(place))
        yield {"sqlite": one, "postgres": other}


@pytest.fixture(params=[(source, target) for source in REAL for target in REAL], ids="-to-".join)
def pair(request: pytest.FixtureRequest, places: Places, filled: dict[str, Place]) -> Iterator[Pair]:
    """A filled place to copy from and an empty one to copy into, of each kind."""
    with pair_of(request, places, filled) as made:
        yield made


@pytest.fixture(params=[REAL, REAL[::-1]], ids="-to-".join)
def across(request: pytest.FixtureRequest, places: Places, filled: dict[str, Place]) -> Iterator[Pair]:
    """The same, of two kinds."""
    with pair_of(request, places, filled) as made:
        yield made
