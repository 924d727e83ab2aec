"""SQL by name: every statement is a file in `sql/`, named by what it is for, read once.

Knows no connection.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def sql(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return files("retinue.store").joinpath("sql", f"{name}.sql").read_text()


def migrations() -> list[str]:
    """The migrations in order; the schema version of a store is how many of them it has seen."""
    folder = files("retinue.store").joinpath("migrations")
    return [
        path.read_text() for path in sorted(folder.iterdir(), key=lambda path: path.name) if path.name.endswith(".sql")
    ]
