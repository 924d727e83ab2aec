"""`retinue sandbox exec`, `snapshot`, `restore`, `fork`: what a person does in a sandbox. Each is a run of its own, so
that the gate is asked and the journal has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from retinue.ingress.boxes import Boxes, Source, check_new, check_pin, replaced_text
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.ingress.controls import open_controls
from retinue.ingress.exits import ENDED, Exit
from retinue.ingress.following import show_result, tell_asks, wait_for
from retinue.ingress.render import counted, short
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import Body, Duration, verb
from retinue.runs.contracts import Json
from retinue.runs.errors import InvalidInput
from retinue.runs.sandbox_errand import ERRAND, MOST_FORKS, Errand
from retinue.runs.sandboxes import ExecResult

_HOW = (
    click.option("--manifest", help="What to open a snapshot under. Default: what it was taken of."),
    click.option("--tenant", help="On whose behalf. Default: the configuration's."),
    click.option("--local", is_flag=True, help="In this process, without Ray."),
)
_WORK = (
    click.option("--timeout", type=Duration(), default="10m", show_default=True, help="What each program may take."),
    click.option("--cwd", default=".", metavar="FOLDER", help="The folder in the workspace to run in."),
    click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable for the program."),
)


_QUIET = 10.0
"""Seconds that the programs of an errand which is canceled may take to end."""


def _options(*options: Callable[[Body], Body]) -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        for option in reversed(options):
            body = option(body)
        return body

    return add


@dataclass(frozen=True, slots=True)
class _Done:
    """What an errand came to: its run and its output; without one, how the command ends."""

    run_id: str
    value: Any
    end: Exit

    @property
    def works(self) -> list[dict[str, Any]]:
        """One for each fork, or the one."""
        return list(self.value["done"])


@verb("exec")
@click.argument("source")
@click.argument("argv", nargs=-1, required=True, metavar="ARGV...")
@_options(*_WORK, *_HOW)
@click.option("--keep", is_flag=True, help="Take a snapshot afterwards, and tell its id.")
async def exec_command(terminal: Terminal, source: str, argv: tuple[str, ...], **options: Any) -> Exit:
    """Run a program in a new sandbox of SOURCE: a manifest, a snapshot, a pin, or a sandbox, which stands for its
    newest snapshot. `--` before the program keeps its own options apart. Its output is shown when it has ended; the
    code is 0 when the program's was."""
    wanted = _work(argv, options) | {"keep": options["keep"]}
    done = await _run(terminal, await _source(terminal, source, options), wanted, options["local"])
    if done.value is None:
        return done.end
    [work] = done.works
    result = ExecResult.model_validate(work["result"])
    terminal.give({"run_id": done.run_id, **work}, None)
    terminal.piece(result.stdout)
    terminal.aside(result.stderr if result.stderr.endswith("\n") or not result.stderr else f"{result.stderr}\n")
    if work["snapshot"]:
        terminal.note(f"kept as {work['snapshot']}")
    if not result.ok:
        terminal.note(_ending(result))
    return Exit.done if result.ok else Exit.failed


@verb("snapshot")
@click.argument("source")
@_options(*_HOW)
@click.option("--pin", metavar="NAME", help="Keep it under this name until `gc --unpin NAME`.")
async def snapshot_command(terminal: Terminal, source: str, pin: str | None, **options: Any) -> Exit:
    """Tell the snapshot that SOURCE stands for, and take one of what a manifest makes. A sandbox of a run that goes on
    stands for the newest that the run has taken."""
    settings = terminal.settings()
    if pin is not None:
        check_pin(pin, settings)
    found, run_id = await _source(terminal, source, options), None
    if found.snapshot is None:
        done = await _run(terminal, found, {"keep": True}, options["local"])
        if done.value is None:
            return done.end
        run_id, found = done.run_id, Source(found.tenant, found.manifest, done.works[0]["snapshot"])
    async with open_controls(settings) as client:
        boxes = Boxes(settings, client.store)
        tree = await boxes.snapshots.tree(found.kept, found.tenant)
        before = await boxes.pin(pin, found) if pin is not None else None
    said: dict[str, Json] = {"snapshot": found.kept, "manifest": found.manifest, "run_id": run_id, "pin": pin}
    terminal.give(said | {"entries": len(tree.entries), "bytes": tree.bytes}, found.kept)
    terminal.note(f"{counted(len(tree.entries), 'name')}, {tree.bytes:,} bytes" + (f"; pinned as {pin}" * bool(pin)))
    if before is not None:
        terminal.note(replaced_text(before))
    return Exit.done


@verb("restore")
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@_options(*_HOW)
async def restore_command(terminal: Terminal, source: str, folder: Path, **options: Any) -> Exit:
    """Write what SOURCE holds to FOLDER, which must not be there: every byte is checked, and nothing is left when one
    is not what was kept. A run opens it first, so that the rules decide who may."""
    settings = terminal.settings()
    target = await asyncio.to_thread(folder.absolute)
    if await asyncio.to_thread(target.exists):
        raise InvalidInput(f"{folder} is there already: name a folder that is not")
    await asyncio.to_thread(check_new, folder)
    found = await _source(terminal, source, options)
    done = await _run(terminal, found, {"keep": found.snapshot is None}, options["local"])
    if done.value is None:
        return done.end
    snapshot = found.snapshot or done.works[0]["snapshot"]
    async with open_controls(settings) as client:
        snapshots = Boxes(settings, client.store).snapshots
        made = await snapshots.restore(snapshot, found.tenant, target)
    said = {"run_id": done.run_id, "snapshot": snapshot, "folder": str(folder)}
    terminal.give(said | {"entries": made.entries, "bytes": made.bytes, "omitted": made.omitted}, str(folder))
    terminal.note(f"{counted(made.entries, 'name')}, {made.bytes:,} bytes of {snapshot}")
    return Exit.done


@verb("fork")
@click.argument("source")
@click.argument("count", type=click.IntRange(1, MOST_FORKS))
@click.argument("argv", nargs=-1, metavar="[ARGV...]")
@_options(*_WORK, *_HOW)
async def fork_command(terminal: Terminal, source: str, count: int, argv: tuple[str, ...], **options: Any) -> Exit:
    """Make COUNT forks of SOURCE, run the program in each at once, and tell the snapshot of each. The variable
    RETINUE_FORK tells a program its number, from 0. The code is 0 when the program's was in every fork."""
    wanted = _work(argv, options) | {"forks": count, "keep": True}
    done = await _run(terminal, await _source(terminal, source, options), wanted, options["local"])
    if done.value is None:
        return done.end
    results = [ExecResult.model_validate(work["result"]) if work["result"] else None for work in done.works]
    lines = [
        f"{number}  {work['snapshot']}  {_ending(result) if result is not None else 'nothing was run'}"
        for number, (work, result) in enumerate(zip(done.works, results, strict=True))
    ]
    terminal.give({"run_id": done.run_id, "forks": done.works}, "\n".join(lines))
    for number, result in enumerate(results):
        if result is not None and not result.ok and result.stderr.strip():
            terminal.note(f"{number}: {result.stderr.strip().splitlines()[-1]}")
    return Exit.done if all(result is None or result.ok for result in results) else Exit.failed


async def _source(terminal: Terminal, source: str, options: dict[str, Any]) -> Source:
    """What is to be worked with; known before any process is started."""
    settings = terminal.settings()
    async with open_controls(settings) as client:
        return await Boxes(settings, client.store).source(source, options["manifest"], options["tenant"])


async def _run(terminal: Terminal, source: Source, wanted: dict[str, Any], local: bool) -> _Done:
    """Have the errand run and wait for its end; what it asks is asked here, if somebody can answer."""
    if not source.manifest:
        raise InvalidInput(
            f"snapshot {source.snapshot} was taken by no sandbox that this store knows: name what to open it "
            "under with --manifest"
        )
    given = Errand(manifest=source.manifest, snapshot=source.snapshot, **wanted).model_dump(mode="json")
    async with connect(settings=terminal.settings(), local=local) as client:
        handle = await client.submit(ERRAND, given, tenant=source.tenant)
        terminal.note(f"run {short(handle.run_id)}")
        try:
            branch = await wait_for(terminal, client, handle.run_id)
        except asyncio.CancelledError:
            await _take_back(terminal, client, handle.run_id)
            raise
        if branch is None:
            return _Done(handle.run_id, None, await tell_asks(terminal, client, handle.run_id))
    if not branch.ok:
        show_result(terminal, branch, None)
        return _Done(handle.run_id, None, ENDED[branch.status])
    return _Done(handle.run_id, branch.value, Exit.done)


async def _take_back(terminal: Terminal, client: Client, run_id: str) -> None:
    """Somebody was there and has stopped it: another process is not to begin it anew when nobody looks."""
    await client.cancel(run_id)
    with suppress(TimeoutError):
        await client.wait(run_id, _QUIET)
    terminal.note(f"run {short(run_id)} is canceled")


def _work(argv: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "argv": argv,
        "cwd": options["cwd"],
        "timeout": min(options["timeout"], 86_400.0),
        "env": dict(map(_variable, options["variables"])),
    }


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"--env {text!r}: give NAME=VALUE")
    return name, value


def _ending(result: ExecResult) -> str:
    limits = f" ({', '.join(result.limits)})" if result.limits else ""
    ended = f"signal {result.signal}" if result.signal is not None else f"code {result.exit_code}"
    return f"ended with {ended}{limits} after {result.micros / 1e6:.2f} s"
