"""`retinue sql`: a question to the trace tables, also while runs write. Knows no table."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from retinue.host.composition import archive_of
from retinue.host.settings import Settings
from retinue.ingress.connecting import connect
from retinue.ingress.exits import Exit
from retinue.ingress.terminal import Terminal, write
from retinue.ingress.verb import verb
from retinue.runs.errors import InvalidInput
from retinue.traces.archived import Days, ask_archive
from retinue.traces.file import FileSettings
from retinue.traces.formats import FORMATS, WIDTH, render
from retinue.traces.query import Query

_DAY = click.DateTime(["%Y-%m-%d"])


@verb("sql")
@click.argument("query")
@click.option("--format", "how", type=click.Choice(FORMATS), help="Default: table; json with --json.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead of stdout.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="At most S seconds.")
@click.option("--archive", is_flag=True, help="Ask what `traces.archive` keeps, not the tables of the runtime.")
@click.option("--since", type=_DAY, metavar="DAY", help="Of the archive only 2026-11-01 (UTC) and later.")
@click.option("--until", type=_DAY, metavar="DAY", help="Of the archive only 2026-11-30 (UTC) and earlier.")
@click.option("--width", type=click.IntRange(4, 100_000), default=WIDTH, show_default=True, help="Of a table's cell.")
async def sql_command(terminal: Terminal, query: str, output: Path | None, **options: Any) -> Exit:
    """Answer QUERY, one SELECT, from the trace tables; @FILE reads it from a file, - from stdin.

    docs/traces.md describes the tables and shows queries for the usual questions.
    """
    how = options["how"] or ("json" if terminal.as_json else "table")
    if how == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("parquet is not for a terminal: name a file with -o, or send it into a pipe")
    if not options["archive"] and (options["since"] or options["until"]):
        raise click.UsageError("--since and --until go with --archive; name times in the query instead")
    settings = terminal.settings()
    asked = Query(_read(query), options["timeout"] or settings.traces.query_timeout)
    if options["archive"]:
        table = await asyncio.to_thread(_archived, settings, asked, _days(options))
    else:
        async with connect(settings=settings, start=False) as client:
            table = await client.query(asked.sql, asked.seconds)
    rendered = render(table, how, options["width"])
    if output is None:
        write(rendered)
        return Exit.done
    _save(output, rendered)
    terminal.note(f"{table.num_rows:,} rows: {output}")
    return Exit.done


def _archived(settings: Settings, query: Query, days: Days) -> pa.Table:
    archive = archive_of(settings)
    if archive is None:
        raise InvalidInput("there is no archive of traces: name a place in `traces.archive`")
    return ask_archive(archive, query, days, FileSettings(memory=settings.traces.memory_limit))


def _days(options: dict[str, Any]) -> Days:
    since, until = (options[name] and options[name].date() for name in ("since", "until"))
    return Days(since, until)


def _read(query: str) -> str:
    if query == "-":
        return sys.stdin.read()
    if not query.startswith("@"):
        return query
    try:
        return Path(query[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"query file {query[1:]} cannot be read: {error}; correct the name after @") from None


def _save(path: Path, rendered: str | bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(rendered if isinstance(rendered, bytes) else rendered.encode())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput(f"-o {path} cannot be written: {error.strerror}; name another file") from None
