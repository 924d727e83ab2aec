"""Lists of what belongs to runs (sessions, sandboxes): which records are wanted, asked in the same words.

Knows no kind of record.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import click

from retinue.ingress.controls import Controls
from retinue.ingress.verb import Body

of_run = click.option("--run", metavar="RUN", help="Only those of this run and of everything below its root.")


def that_stand(statuses: type[StrEnum], body: Body) -> Body:
    """With the options that say which records: how they stand, whose they are, how many."""
    choice = click.Choice([each.value for each in statuses])
    for option in (
        click.option(
            "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many."
        ),
        click.option("--all", "everything", is_flag=True, help="Closed ones too."),
        click.option("--tenant", help="Only those of this tenant."),
        click.option("--status", type=choice, help="Only those that stand so."),
    ):
        body = option(body)
    return body


async def wanted_by(client: Controls, statuses: type[StrEnum], given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a query that these options stand for. UnknownName for a run that is not there."""
    status = statuses(given["status"]) if given["status"] else None
    return {
        "root_run_id": (await client.get(given["run"])).root_run_id if given["run"] is not None else None,
        "status": status,
        "tenant_id": given["tenant"],
        "open_only": not given["everything"] and status is None,
        "limit": given["limit"],
    }
