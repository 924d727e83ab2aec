"""`retinue inbox`, `approve`, `deny`, `answer`: what runs ask people, in one place. Needs no runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click
from pydantic_core import from_json

from retinue.host.presence import find_runtime
from retinue.ingress.client import Client, connect
from retinue.ingress.exits import Exit
from retinue.ingress.render import moment, request_text, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.contracts import PendingRequest
from retinue.runs.errors import InvalidInput

_BY = click.option("--by", help="Who says it. Default: the configuration's principal.")


@verb("inbox")
async def inbox_command(terminal: Terminal) -> Exit:
    """List what runs ask people, oldest first, with the commands that answer."""
    async with connect(settings=terminal.settings(), start=False) as client:
        requests = await client.inbox()
    texts = [f"{request.request_id}  {moment(request.created_at)}  {request_text(request)}" for request in requests]
    terminal.give(requests, "\n\n".join(texts) or "nothing is asked")
    return Exit.done


@verb("approve")
@click.argument("request")
@_BY
async def approve_command(terminal: Terminal, request: str, by: str | None) -> Exit:
    """Say yes to the approval REQUEST. The policy decides whether your yes counts for your own run."""
    return await _resolve(terminal, lambda client: client.approve(request, by))


@verb("deny")
@click.argument("request")
@click.option("--why", default="", help="Told to the agent.")
@_BY
async def deny_command(terminal: Terminal, request: str, why: str, by: str | None) -> Exit:
    """Say no to the approval REQUEST."""
    return await _resolve(terminal, lambda client: client.deny(request, by, why))


@verb("answer")
@click.argument("request")
@click.argument("text", required=False)
@click.option("--value", metavar="JSON", help="A structured answer instead of TEXT.")
@_BY
async def answer_command(terminal: Terminal, request: str, text: str | None, value: str | None, by: str | None) -> Exit:
    """Answer the question REQUEST with TEXT."""
    if (text is None) == (value is None):
        raise click.UsageError("give either TEXT or --value JSON")
    try:
        said = text if value is None else from_json(value)
    except ValueError as error:
        raise InvalidInput(f"--value is not JSON: {error}; a plain answer needs no --value") from None
    return await _resolve(terminal, lambda client: client.answer(request, said, by))


async def _resolve(terminal: Terminal, act: Callable[[Client], Awaitable[PendingRequest]]) -> Exit:
    settings = terminal.settings()
    async with connect(settings=settings, start=False) as client:
        resolved = await act(client)
    name = short(resolved.root_run_id)
    hosted = find_runtime(settings.data_folder) is not None
    goes_on = "it goes on" if hosted else f"no runtime lives: `retinue wait {name}` carries it on"
    terminal.give(resolved, f"{resolved.status} by {resolved.resolved_by}; run {name}: {goes_on}")
    return Exit.done
