"""News of commits reach every store of a database, whatever its process has open and whoever restarts the server."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.doubles.places import Place, Places, Store
from tests.doubles.postgres import PostgresServer
from tests.doubles.shapes import START, host, new_run
from tests.doubles.sides import two_sides


@pytest.fixture
def shared(places: Places) -> Iterator[Place]:
    with places.new("postgres") as place:
        yield place


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """As many open files as a busy server has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4_096, hard)), hard))
    files = [os.open(Path("/dev/null"), os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def grows(store: Store, times: int = 1) -> None:
    """Wait until there was so much news; fails when there is none."""
    seen, until = store.version(), time.monotonic() + 20
    while store.version() < seen + times:
        assert time.monotonic() < until, "no news came"
        threading.Event().wait(0.01)


def test_news_come_also_when_a_process_has_many_files_open(shared: Place) -> None:
    with many_files(1_100), two_sides(shared) as (one, two):
        one.run(lambda store: store.register(host()))
        one.run(lambda store: store.submit([new_run("top")]))
        grows(two.store, 3)


def test_news_come_again_after_a_restart(shared: Place, postgres: PostgresServer) -> None:
    with two_sides(shared) as (one, two):
        one.run(lambda store: store.register(host()))
        postgres.restart("immediate")
        one.run(lambda store: store.submit([new_run("top")]))
        grows(two.store, 3)
        assert len(two.run(lambda store: store.lease(host(), "runs", 5, START))) == 1
