"""`retinue sandbox ...`: what workspaces are made from, and the sandboxes of runs. Each command stands in a module
beside this one, with those that belong to it."""

from __future__ import annotations

import click

from retinue.ingress.verbs.sandbox_errands import exec_command, fork_command, restore_command, snapshot_command
from retinue.ingress.verbs.sandbox_manifests import check_command, pin_command
from retinue.ingress.verbs.sandbox_records import list_command, show_command
from retinue.ingress.verbs.sandbox_snapshots import diff_command, export_command, gc_command, import_command


@click.group("sandbox")
def sandbox_command() -> None:
    """What sandboxes are made from, and what they hold. Each command takes --project and --json."""


_MANIFESTS = (check_command, pin_command)
_RECORDS = (list_command, show_command)
_ERRANDS = (exec_command, snapshot_command, restore_command, fork_command)
_SNAPSHOTS = (diff_command, gc_command, export_command, import_command)

for _command in (*_MANIFESTS, *_RECORDS, *_ERRANDS, *_SNAPSHOTS):
    sandbox_command.add_command(_command)
