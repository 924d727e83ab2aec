"""`retinue tenants list`, `erase`: whose content is kept, and how it is erased. Needs no runtime."""

from __future__ import annotations

import click

from retinue.host.erasing import Erased, Order, Standing, beyond, check_erasable, erase_tenant, standings
from retinue.host.opening import opened_store
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.render import columns, counted
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import InvalidInput

_HEAD = ("TENANT", "CONTENT", "RUNS", "OPEN")


@click.group("tenants")
def tenants_command() -> None:
    """Whose runs and content there are, and erasing them. Each command takes --project and --json."""


@verb("list")
async def list_command(terminal: Terminal) -> Exit:
    """List tenants: whether their content is kept or was erased, their runs, and those that have not ended."""
    async with opened_store(terminal.settings()) as store:
        found = await standings(store)
    terminal.give(found, columns(_HEAD, list(map(_row, found))) if found else "no tenants")
    return Exit.done


@verb("erase")
@click.argument("tenant")
@click.option("--yes", is_flag=True, help="Erase without being asked.")
@click.option("--why", default="", help="The reason, for the record.")
@click.option("--by", help="Who says it. Default: the configuration's principal.")
async def erase_command(terminal: Terminal, tenant: str, yes: bool, why: str, by: str | None) -> Exit:
    """Erase the content of TENANT for ever: destroy its key, and remove what stands in plain on this machine.

    Refused while runs of it go on. Broken off, the same command goes on; done again, it removes what came since.
    """
    settings = terminal.settings()
    async with opened_store(settings) as store:
        await check_erasable(store, tenant)
        if not yes and not _agreed(terminal, settings, tenant):
            return Exit.usage
        done = await erase_tenant(settings, store, Order(tenant, by or settings.principal, why))
    terminal.give(done, _text(done))
    return Exit.done


def _agreed(terminal: Terminal, settings: Settings, tenant: str) -> bool:
    """Whether a person has typed the name, having seen what it means."""
    if not terminal.talks:
        raise InvalidInput(f"nobody can be asked here: say --yes to erase tenant {tenant!r}")
    terminal.note(
        f"The key of tenant {tenant} is destroyed: prompts, answers, arguments, results, memories and snapshots of all "
        "its runs can never be read again, by anybody. Not reached:"
    )
    terminal.note(_listed(beyond(settings)))
    typed = click.prompt("Type the tenant's name to erase it", default="", show_default=False, err=True)
    return bool(typed == tenant)


def _text(done: Erased) -> str:
    parts = [
        "its key is destroyed" if done.key else "its key was destroyed before",
        f"{done.snapshot_bytes:,} bytes of snapshots",
        counted(done.bases, "plain copy", "plain copies"),
        counted(done.workspaces, "workspace"),
        counted(done.pins, "pin"),
        "the trace tables, which are made again without it" if done.tables else "no trace tables",
    ]
    return f"tenant {done.tenant} is erased: {parts[0]}; gone are {', '.join(parts[1:])}\nnot reached:\n" + _listed(
        done.left
    )


def _listed(left: tuple[str, ...]) -> str:
    return "\n".join(f"- {each}" for each in left)


def _row(one: Standing) -> list[str]:
    return [one.tenant, one.content, f"{one.runs:,}", f"{one.open:,}"]


for _command in (list_command, erase_command):
    tenants_command.add_command(_command)
