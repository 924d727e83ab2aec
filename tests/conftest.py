"""Marks that tie a test to what it shows: `promise("A5")` and `rule("R3")`, ids of docs/promises.md."""

from __future__ import annotations

import pytest
from tests.doubles.s3 import bucket as bucket
from tests.doubles.s3 import s3_server as s3_server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(id): shows a promise of docs/promises.md, e.g. promise('A5')")
    config.addinivalue_line("markers", "rule(id): shows an engine rule of docs/promises.md, e.g. rule('R3')")
    config.addinivalue_line("markers", "llm: needs a real language model (make test-llm)")
