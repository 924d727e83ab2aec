"""Fixtures of the engine's tests: worlds over the double, fast, and over the stores that are real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.places import KINDS, Places
from tests.doubles.worlds import World, world

from retinue.runs.definitions import Definition

Make = Callable[..., Awaitable[World]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Make a world over the double: `await make(definition, ..., policy=...)`."""
    async with AsyncExitStack() as stack:

        async def build(*definitions: Definition, **options: Any) -> World:
            return await stack.enter_async_context(world("memory", tmp_path, *definitions, **options))

        yield build


@pytest.fixture(params=KINDS)
async def make_on_each(request: pytest.FixtureRequest, tmp_path: Path, places: Places) -> AsyncIterator[Make]:
    """Make a world, once over each store."""
    with places.cleared(request.param) as place:
        async with AsyncExitStack() as stack:

            async def build(*definitions: Definition, **options: Any) -> World:
                made = world(place.kind, tmp_path, *definitions, url=place.url, **options)
                return await stack.enter_async_context(made)

            yield build
