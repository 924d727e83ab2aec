"""`retinue capabilities list`, `show`, `test`, `pin`, `diff`: what can be called, and what of servers is approved."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from retinue.host.composition import load_project
from retinue.ingress.exits import Exit
from retinue.ingress.pin_text import comparison_text, hints, visible
from retinue.ingress.pinning import Comparison, call_once, compare, server_named
from retinue.ingress.render import columns, counted
from retinue.ingress.terminal import Terminal, as_block
from retinue.ingress.verb import parsed, verb
from retinue.runs.capabilities import Capability
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.sessions.pins import FILE, capability_name, read_intact, read_lock, write_lock

_HEAD = ("NAME", "EFFECT", "SENSITIVITY", "STAGE", "SOURCE", "VERSION", "OWNER")


@click.group("capabilities")
def capabilities_command() -> None:
    """What agents and workflows can call: functions of this project and tools of servers. Each command takes --project
    and --json."""


@verb("list")
async def list_command(terminal: Terminal) -> Exit:
    """List all capabilities with their contracts."""
    settings = terminal.settings()
    found = await asyncio.to_thread(lambda: load_project(settings).capabilities)
    rows = [(one.name, effect(one), one.sensitivity, one.stage, one.source, one.version, one.owner) for one in found]
    terminal.give([_row(one) for one in found], columns(_HEAD, rows) if rows else "no capabilities: no tools, no pins")
    return Exit.done


@verb("show")
@click.argument("name")
async def show_command(terminal: Terminal, name: str) -> Exit:
    """Show the capability NAME: its contract, its schemas, and what its server says of it."""
    settings = terminal.settings()
    project = await asyncio.to_thread(load_project, settings)
    one = project.gateway.capability(name)
    facts = one.model_dump(mode="json", exclude={"needs"})
    lines = [f"{key:<15}{value}" for key, value in facts.items() if key not in _LONG and value not in ("", None)]
    said = _said_by_server(settings.folder, one)
    text = [*lines, *(f"{key:<15}{visible(str(value))}" for key, value in said.items()), "", visible(one.description)]
    schemas = [f"{key}\n{visible(as_block(facts[key]))}" for key in ("input_schema", "output_schema") if facts[key]]
    terminal.give(facts | said, "\n\n".join(["\n".join(text), *schemas]))
    return Exit.done


@verb("test")
@click.argument("server")
@click.argument("tool", required=False)
@click.option("--args", "arguments", metavar="JSON", default="{}", help="The arguments of TOOL.")
async def test_command(terminal: Terminal, server: str, tool: str | None, arguments: str) -> Exit:
    """Connect to SERVER and list its tools, or call its TOOL, which has to be one that only reads.

    The call passes the gate like any other; it belongs to no run and leaves no journal.
    """
    settings = terminal.settings()
    declared = server_named(settings, server)
    if tool is None:
        [found] = await compare(settings, [declared])
        terminal.give(_facts(found), _reached(found))
        return Exit.failed if found.problem else Exit.done
    given = parsed(arguments, "--args", 'text stands in quotes: --args \'{"path": "a.txt"}\'')
    if not isinstance(given, dict):
        raise InvalidInput(f"--args: {arguments[:80]!r} is no JSON object")
    trial = await call_once(settings, server, tool, given)
    value = trial.value if isinstance(trial.value, str) else as_block(trial.value)
    terminal.note(f"{trial.capability}: {trial.size:,} bytes in {trial.seconds:.2f} s{', cut' if trial.cut else ''}")
    terminal.give(trial, value)
    return Exit.done


@verb("pin")
@click.argument("server")
@click.option("--yes", is_flag=True, help="Approve what is shown, without being asked.")
async def pin_command(terminal: Terminal, server: str, yes: bool) -> Exit:
    """Approve the tools of SERVER as they are now: connect, show what is not as it was pinned, ask, and write it into
    capabilities.lock with who said so and when. Pins of a server that is declared no longer are taken out."""
    settings = terminal.settings()
    if server not in settings.capabilities and server in read_intact(settings.folder).servers:
        return _unpin(terminal, server, yes)
    [found] = await compare(settings, [server_named(settings, server)])
    if found.problem or found.pinned is None:
        terminal.give(_facts(found), comparison_text(found))
        return Exit.failed
    if found.same:
        terminal.give(_facts(found) | {"written": False}, comparison_text(found))
        return Exit.done
    terminal.note(comparison_text(found))
    if not _approved(terminal, yes, f"pin {server} so"):
        return Exit.usage
    write_lock(settings.folder, server, found.pinned)
    written = f"{server}: {counted(len(found.pinned.tools), 'tool')} pinned in {FILE}; keep that file under version"
    terminal.give(_facts(found) | {"written": True}, written)
    return Exit.done


@verb("diff")
@click.argument("server", required=False)
async def diff_command(terminal: Terminal, server: str | None) -> Exit:
    """Connect to SERVER, or to all that are declared, and show what is not as it was pinned. Exit code 1 when
    something is not, or a server does not answer."""
    settings = terminal.settings()
    wanted = [server_named(settings, server)] if server is not None else list(settings.servers.values())
    found = await compare(settings, wanted)
    terminal.give(list(map(_facts, found)), "\n".join(map(comparison_text, found)) or "no server is declared")
    return Exit.done if all(one.same for one in found) else Exit.failed


def effect(capability: Capability) -> str:
    """What it changes, and of a write whether it may be repeated."""
    if capability.side_effect != "write":
        return capability.side_effect
    return f"write, {capability.idempotency}"


_LONG = frozenset({"description", "input_schema", "output_schema"})


def _row(one: Capability) -> dict[str, Json]:
    return one.model_dump(mode="json", exclude={"input_schema", "output_schema", "needs"})


def _facts(found: Comparison) -> dict[str, Json]:
    known = found.known
    return {
        "server": found.server,
        "same": found.same,
        "problem": found.problem or None,
        "pinned": None if known is None else {"by": known.by, "at": known.at, "tools": sorted(known.tools)},
        "tools": [] if found.pinned is None else sorted(found.pinned.tools),
        "left_out": {} if found.pinned is None else found.pinned.left_out,
        "protocol": None if found.pinned is None else found.pinned.protocol,
        "changes": [change.model_dump(mode="json") for change in found.changes],
        "seconds": found.seconds,
    }


def _reached(found: Comparison) -> str:
    if found.problem or found.pinned is None:
        return comparison_text(found)
    names = "\n".join(f"  {visible(name)}: {hints(tool)}" for name, tool in found.pinned.tools.items())
    return f"{found.server}: reached in {found.seconds:.2f} s\n{names}\n{comparison_text(found)}"


def _said_by_server(folder: Path, one: Capability) -> dict[str, Json]:
    """What is kept of a remote capability beside its contract."""
    server = one.source.removeprefix("mcp:")
    pins = read_lock(folder).servers.get(server) if one.source != "native" else None
    if pins is None:
        return {}
    tool = next(name for name in pins.tools if capability_name(server, name) == one.name)
    return {"tool": tool, "hints": hints(pins.tools[tool]), "pinned_by": pins.by, "pinned_at": pins.at}


def _approved(terminal: Terminal, yes: bool, what: str) -> bool:
    if yes:
        return True
    if not terminal.talks:
        raise InvalidInput(
            f"nobody can be asked here: say --yes to {what}, after a look at `retinue capabilities diff`"
        )
    return click.confirm(f"{what}?", default=False, err=True)


def _unpin(terminal: Terminal, server: str, yes: bool) -> Exit:
    settings = terminal.settings()
    terminal.note(f"{server} is declared no longer in retinue.yaml")
    if not _approved(terminal, yes, f"take the pins of {server} out"):
        return Exit.usage
    write_lock(settings.folder, server, None)
    terminal.give({"server": server, "written": True}, f"{server}: its pins are gone from {FILE}")
    return Exit.done


for _command in (list_command, show_command, test_command, pin_command, diff_command):
    capabilities_command.add_command(_command)
