"""`retinue mcp`: the project's runs as tools for agents elsewhere. Knows no run."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from retinue.host.composition import load_project
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.mcp.http import Place, read_place, serve_http
from retinue.ingress.mcp.opening import Opening, until_one_ends
from retinue.ingress.mcp.rights import Rights
from retinue.ingress.mcp.server import make_server
from retinue.ingress.mcp.stdio import serve_stdio
from retinue.ingress.mcp.targets import TargetTool, target_tools
from retinue.ingress.mcp.tools import Face
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import ConfigError, InvalidInput

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORTEST_KEY = 32


@verb("mcp")
@click.option("--http", metavar="HOST:PORT", help="Over streamable HTTP at /mcp instead of stdio. Loopback only, or:")
@click.option("--token-from", metavar="NAME", help="The environment variable with the bearer token it asks for.")
@click.option("--allow-host", "names", multiple=True, metavar="HOST", help="A name clients call it by, as in Host.")
@click.option("--principal", help="Who the client is. Default: mcp: and the configuration's principal.")
@click.option("--tenant", help="Whose runs it sees and begins. Default: the configuration's.")
@click.option("--others", is_flag=True, help="It also acts on runs that others of the tenant asked for.")
@click.option("--approvals", is_flag=True, help="It decides approvals and doubts of runs that others asked for.")
@click.option("--traces/--no-traces", default=None, help="Whether it may query the traces, which hold all tenants.")
@click.option(
    "--state-key", "keys", multiple=True, metavar="REF", help="${NAME} of the key replicas share; the newest first."
)
@click.option("--tool", "targets", multiple=True, metavar="TARGET", help="An agent or workflow as a tool of its own.")
@click.option("--local", is_flag=True, help="Runs are hosted in this process, without Ray.")
async def mcp_command(terminal: Terminal, http: str | None, **options: Any) -> Exit:
    """Serve the project's runs as an MCP server, over stdio or HTTP, until the client leaves or Ctrl-C.

    Where no runtime lives, one is started that ends with the server. docs/mcp.md tells who may do what.
    """
    settings = terminal.settings()
    place = None if http is None else read_place(http, _token(options["token_from"]), options["names"])
    if place is None and (options["token_from"] or options["names"]):
        raise click.UsageError("--token-from and --allow-host go with --http: stdio has the one client that started it")
    opening = Opening(settings, local=options["local"])
    face = Face(_rights(settings, options), opening.client)
    keys = [_key(reference) for reference in options["keys"]]
    server = make_server(face, keys, _targets(settings, options["targets"]))
    serving = (
        serve_stdio(server) if place is None else serve_http(server, place, lambda url: _tell(terminal, place, url))
    )
    await until_one_ends(serving, opening.hold())
    return Exit.done


def _rights(settings: Settings, options: dict[str, Any]) -> Rights:
    """Who is connected. Without a word about it an agent is not the person whose project it is."""
    traces = options["traces"]
    return Rights(
        principal=options["principal"] or f"mcp:{settings.principal}",
        tenant=options["tenant"] or settings.tenant,
        others=options["others"],
        approvals=options["approvals"],
        traces=options["tenant"] is None if traces is None else traces,
        roles=settings.roles,
    )


def _targets(settings: Settings, names: tuple[str, ...]) -> dict[str, TargetTool]:
    """The tools of their own; the project is loaded now only if there are any."""
    return target_tools(load_project(settings).registry, names) if names else {}


def _token(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise ConfigError(f"--token-from: the environment variable {name} is not set in this process; set it")
    return os.environ[name]


def _key(reference: str) -> str:
    """The key that `${NAME}` stands for. ConfigError, InvalidInput."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise InvalidInput("--state-key must name a variable of the environment, such as '${MCP_KEY}', not be the key")
    key = os.environ.get(found[1], "")
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(
            f"--state-key: the environment variable {found[1]} holds {len(key)} characters; a key has {_SHORTEST_KEY} "
            "or more of randomness"
        )
    return key


def _tell(terminal: Terminal, place: Place, url: str) -> None:
    terminal.give({"url": url, "token": place.token is not None, "pid": os.getpid()})
    terminal.note(f"serving {url}" + (" with a token" if place.token else "") + "; Ctrl-C ends it")
