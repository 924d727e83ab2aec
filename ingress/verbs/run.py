"""`retinue run`: one run, in the foreground, in the background, or in this very process.

Knows no store.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import click

from retinue.ingress.connecting import connect
from retinue.ingress.exits import Exit
from retinue.ingress.following import follow
from retinue.ingress.render import short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import Dollars, Duration, parsed, told_share, verb
from retinue.runs.contracts import Budget, Json
from retinue.runs.errors import InvalidInput


@verb("run")
@click.argument("target")
@click.argument("question", required=False)
@click.option("--input", "input_json", metavar="JSON", help="A structured input: JSON, @FILE, or - for stdin.")
@click.option("--stream", is_flag=True, help="Show text and events as they come.")
@click.option("--background", is_flag=True, help="Return at once; starts a runtime when none lives.")
@click.option("--local", is_flag=True, help="In this process, without Ray.")
@click.option("--model", help="The model of every agent in it that names none.")
@click.option("--tenant", help="On whose behalf. Default: the configuration's.")
@click.option("--principal", help="Who asks. Default: the configuration's.")
@click.option("--session", "session_id", help="The session it belongs to.")
@click.option("--key", "idempotency_key", help="Idempotency key: a second run with it is the first one.")
@click.option("--max-cost", type=Dollars(), metavar="USD", help="Money for the run and all below it.")
@click.option("--deadline", type=Duration(), metavar="SPAN", help="The run must end within: 90s, 10m, 2h.")
@click.option("--priority", type=click.IntRange(-1000, 1000), help="Higher begins first, among a tenant's runs. [0]")
@click.option("--queue", help="The queue whose `limits:` it keeps. Default: its definition's.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Wait at most S seconds.")
async def run_command(terminal: Terminal, target: str, question: str | None, **options: Any) -> Exit:
    """Run TARGET, an agent or a workflow, on QUESTION and show its answer.

    What it asks is asked at the terminal; without one the command ends with code 3 and says how to answer.
    """
    background, local = options["background"], options["local"]
    if background and local:
        raise click.UsageError("--background needs a runtime and --local is none: give one of the two")
    value = await asyncio.to_thread(_input, question, options["input_json"])
    settings = terminal.settings()
    if background:
        # Ray costs a second to import; only here it is needed.
        runtime = importlib.import_module("retinue.actors.runtime")
        await asyncio.to_thread(runtime.up, settings)
    async with connect(settings=settings, local=local, start=not background) as client:
        told_share(terminal, settings, options["tenant"], options["max_cost"])
        handle = await client.submit(target, value, stream=options["stream"], **_said(options))
        if not background:
            terminal.note(f"run {handle.run_id}")
            return await follow(terminal, client, handle.run_id, stream=options["stream"], timeout=options["timeout"])
        terminal.give({"run_id": handle.run_id}, handle.run_id)
        name = short(handle.run_id)
        terminal.note(f"`retinue wait {name}` shows its answer, `retinue logs -f {name}` follows it")
        return Exit.done


def _said(options: dict[str, Any]) -> dict[str, Any]:
    names = ("model", "tenant", "principal", "session_id", "idempotency_key", "priority", "queue", "deadline")
    said = {name: options[name] for name in names if options[name] is not None}
    if options["max_cost"] is not None:
        said["budget"] = Budget(usd=options["max_cost"])
    return said


def _input(question: str | None, text: str | None) -> Json:
    """The input: text, or JSON from the option, a file or stdin. InvalidInput says where it breaks."""
    if (question is None) == (text is None):
        raise click.UsageError("give either a QUESTION or --input JSON")
    if text is None:
        return question
    where = "--input"
    try:
        if text == "-":
            where, text = "stdin", sys.stdin.read()
        elif text.startswith("@"):
            where = text[1:]
            text = Path(where).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"--input: {where} cannot be read: {error.strerror}; correct the name after @") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"--input: {where}, byte {error.start} is not UTF-8: convert the file") from None
    return parsed(text, f"--input: {where}", "a plain question needs no --input")
