"""`retinue sandbox ...`: what workspaces are made from, and the sandboxes of runs. Each command stands in a module
beside this one, with those that belong to it."""

from __future__ import annotations

import click

from retinue.ingress.verbs.sandbox_manifests import check_command, pin_command


@click.group("sandbox")
def sandbox_command() -> None:
    """What sandboxes are made from, and what they hold. Each command takes --project and --json."""


for _command in (check_command, pin_command):
    sandbox_command.add_command(_command)
