"""`retinue inbox`, `approve`, `deny`, `answer`: what runs ask people, in one place. Needs no runtime."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import click

from retinue.host.clock import now_ns
from retinue.host.settings import Settings
from retinue.ingress.controls import Controls, open_controls
from retinue.ingress.exits import Exit
from retinue.ingress.pending import LIMIT
from retinue.ingress.pending_text import pending_text
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import parsed, verb, what_follows
from retinue.runs.contracts import PendingRequest

_BY = click.option("--by", help="Who says it. Default: the configuration's principal.")


@verb("inbox")
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Events, moments, children and tries too, without RUN.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=LIMIT, show_default=True, help="At most so many.")
async def inbox_command(terminal: Terminal, run: str | None, everything: bool, limit: int) -> Exit:
    """List what runs ask people, root by root, with the commands that answer; with RUN everything that the whole
    tree of RUN waits for."""
    async with open_controls(terminal.settings()) as client:
        found = await client.pending(run, everything, limit)
    terminal.give(found, pending_text(found, now_ns()))
    return Exit.done


@verb("approve")
@click.argument("request")
@click.option("--edit", metavar="JSON", help="Arguments to put in place of those it was asked for with.")
@_BY
async def approve_command(terminal: Terminal, request: str, edit: str | None, by: str | None) -> Exit:
    """Say yes to the approval REQUEST. The policy decides whether your yes counts for your own run, and which role it
    needs; with --edit it is asked again about the call with the changed arguments."""
    if edit is None:
        return await _resolve(terminal, lambda client: client.approve(request, by))
    changes = parsed(edit, "--edit", 'give an object such as {"amount": 50}')
    settings = terminal.settings()
    async with importlib.import_module("retinue.ingress.connecting").connect(settings=settings, start=False) as client:
        return _said(terminal, settings, await client.approve(request, by, changes))


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
@click.option("--value", metavar="JSON", help="A structured answer instead of TEXT, such as a form's fields.")
@click.option("--decline", is_flag=True, help="Decline what a server asks; its call goes on without an answer.")
@_BY
async def answer_command(terminal: Terminal, request: str, by: str | None, **said_as: Any) -> Exit:
    """Answer the question REQUEST with TEXT."""
    text, value, decline = said_as["text"], said_as["value"], said_as["decline"]
    if [text is not None, value is not None, decline].count(True) != 1:
        raise click.UsageError("give either TEXT, --value JSON or --decline")
    if decline:
        return await _resolve(terminal, lambda client: client.decline(request, by))
    said = text if value is None else parsed(value, "--value", "a plain answer needs no --value")
    return await _resolve(terminal, lambda client: client.answer(request, said, by))


async def _resolve(terminal: Terminal, act: Callable[[Controls], Awaitable[PendingRequest]]) -> Exit:
    settings = terminal.settings()
    async with open_controls(settings) as client:
        resolved = await act(client)
    return _said(terminal, settings, resolved)


def _said(terminal: Terminal, settings: Settings, resolved: PendingRequest) -> Exit:
    goes_on = what_follows(settings, resolved.root_run_id)
    terminal.give(resolved, f"{resolved.status} by {resolved.resolved_by}; {goes_on}")
    return Exit.done
