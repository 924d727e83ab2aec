"""Fixtures of the engine's tests: worlds over the double, fast, and over the embedded store, real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.shapes import STORES
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


@pytest.fixture(params=STORES)
async def make_on_each(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Make a world, once over each store."""
    async with AsyncExitStack() as stack:

        async def build(*definitions: Definition, **options: Any) -> World:
            return await stack.enter_async_context(world(request.param, tmp_path, *definitions, **options))

        yield build
