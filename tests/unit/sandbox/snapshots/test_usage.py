"""What a store holds of a tenant is counted while others write, delete and go."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.sandbox.snapshots.objects import LocalObjects

pytestmark = pytest.mark.promise("E3")


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Threads that take turns so often that each meets the others everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_turns")
def test_it_is_counted_while_others_write(tmp_path: Path) -> None:
    objects, over, failed = LocalObjects(tmp_path), threading.Event(), list[BaseException]()

    def write(name: str) -> None:
        number = 0
        while not over.is_set():
            with objects.writing("acme") as batch:
                for part in range(5):
                    batch.put(f"objects/{name}/{number}-{part}", b"x" * 100)
                batch.commit(f"trees/{name}-{number}", b"x")
            objects.delete("acme", f"trees/{name}-{number}")
            number += 1

    def count() -> None:
        try:
            until = time.monotonic() + 2
            while time.monotonic() < until:
                objects.usage("acme")
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two", "three", "four")]
    threads.append(threading.Thread(target=count))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and over.is_set()


def test_drafts_are_not_counted_and_nothing_of_them_is_remembered(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    for number in range(20):
        with objects.writing("acme") as batch:
            batch.put("objects/aa/one", b"x" * 10_000)
            assert objects.usage("acme") == (10_001 if number else 0)
            batch.commit("trees/t", b"x")
    assert objects.usage("acme") == 10_001
    assert len(objects._sizes) <= 4  # the home, and a folder for each kind of object
