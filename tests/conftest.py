"""Marks that tie a test to what it shows: `promise("A5")` and `rule("R3")`, ids of docs/promises.md; the PostgreSQL
server that all tests share, and the places of their stores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.doubles.places import REAL, Place, Places
from tests.doubles.postgres import NoServer, PostgresServer, programs_folder
from tests.doubles.s3 import bucket as bucket
from tests.doubles.s3 import s3_server as s3_server
from tests.doubles.self_tests import tested_once as tested_once


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(id): shows a promise of docs/promises.md, e.g. promise('A5')")
    config.addinivalue_line("markers", "rule(id): shows an engine rule of docs/promises.md, e.g. rule('R3')")
    config.addinivalue_line("markers", "long: brings a whole cluster up and down (make test-long)")
    config.addinivalue_line("markers", "llm: needs a real language model (make test-llm)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this session. Where none is installed the test is skipped, under CI it fails."""
    try:
        programs_folder()
    except NoServer as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Makes places for stores: `with places.new("postgres") as place`."""
    return Places(tmp_path_factory.mktemp("places"), lambda: request.getfixturevalue("postgres"))


@pytest.fixture(params=REAL)
def place(request: pytest.FixtureRequest, places: Places) -> Iterator[Place]:
    """An empty place, once for each kind of store that outlives a process."""
    with places.cleared(request.param) as made:
        yield made
