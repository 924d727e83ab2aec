"""The store's statements as PostgreSQL reads them: those that differ have a file of the same name in `sql/` here.

The rest is rewritten by a few rules, once per statement: placeholders, JSON, and hints to SQLite's planner. Knows no
connection.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from retinue.store.statements import sql

_RULES = (
    (re.compile(r" INDEXED BY \w+"), ""),
    (re.compile(r"\+q\."), "q."),
    (re.compile(r"json_each\(([:?]\w*)\)"), r"jsonb_array_elements_text(CAST(\1 AS jsonb)) AS each (value)"),
    (re.compile(r"json_type\(([\w.]+), '\$\.(\w+)'\)"), r"json_field(\1, '\2')"),
    (re.compile(r"([\w.]+) ->> '\$\.(\w+)'"), r"json_field(\1, '\2')"),
)
_NAME = re.compile(r"(?<![:\w]):([a-z_]+)")


@cache
def translate(statement: str) -> str:
    """A statement of the store in PostgreSQL's words, with psycopg's placeholders."""
    own = _replaced().get(statement)
    if own is None:
        own = statement
        for pattern, text in _RULES:
            own = pattern.sub(text, own)
    return _NAME.sub(r"%(\1)s", own.replace("%", "%%").replace("?", "%s"))


@cache
def postgres_sql(name: str) -> str:
    """A statement that only PostgreSQL has, ready for psycopg."""
    return translate(_folder().joinpath(f"{name}.sql").read_text())


def migrations() -> list[str]:
    """The migrations in order; the schema version of a store is how many of them it has seen."""
    steps = files("retinue.store.postgres").joinpath("migrations").iterdir()
    return [path.read_text() for path in sorted(steps, key=lambda path: path.name) if path.name.endswith(".sql")]


@cache
def _replaced() -> dict[str, str]:
    """The statements that PostgreSQL says otherwise, by SQLite's text."""
    shared = {path.name for path in files("retinue.store").joinpath("sql").iterdir()}
    own = [path for path in _folder().iterdir() if path.name in shared]
    return {sql(path.name.removesuffix(".sql")): path.read_text() for path in own}


def _folder() -> Traversable:
    return files("retinue.store.postgres").joinpath("sql")
