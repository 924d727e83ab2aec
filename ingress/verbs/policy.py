"""`retinue policy check`, `test`, `explain`, `replay`: rules before they are in force, and what they have decided.

Changes nothing. Needs no runtime.
"""

from __future__ import annotations

from pathlib import Path

import click

from retinue.host.clock import now_ns
from retinue.host.opening import opened_store
from retinue.host.settings import Settings
from retinue.ingress.exits import Exit
from retinue.ingress.policy_cases import read_cases, run_cases
from retinue.ingress.policy_record import MOST, explain, replay
from retinue.ingress.policy_text import cases_text, explained_text, replayed_text, rules_text
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import Duration, verb
from retinue.policy.gate import CedarGate
from retinue.policy.load import load_gate
from retinue.runs.errors import ConfigError

_FOLDER = click.Path(path_type=Path, file_okay=False)
_POLICY = click.option(
    "--policy", "folder", type=_FOLDER, metavar="FOLDER", help="Rules of this folder. Default: the project's."
)


@click.group("policy")
def policy_command() -> None:
    """Rules of the gate. Each command takes --project and --json."""


@verb("check")
@click.argument("folder", required=False, type=_FOLDER)
async def check_command(terminal: Terminal, folder: Path | None) -> Exit:
    """Check the rules in FOLDER (default: the project's) and list them. Exit code 2 for rules that cannot be used."""
    gate = _gate(terminal.settings(), folder)
    listed = [
        {
            "id": rule.id,
            "outcome": rule.outcome,
            "role": rule.role,
            "reason": rule.reason,
            "stages": None if rule.stages is None else sorted(rule.stages),
            "resource": rule.resource,
            "where": rule.where,
        }
        for rule in gate.rules
    ]
    terminal.give({"digest": gate.digest, "rules": listed}, rules_text(gate.rules, gate.digest))
    return Exit.done


@verb("test")
@click.argument("cases", type=click.Path(path_type=Path, dir_okay=False))
@_POLICY
async def test_command(terminal: Terminal, cases: Path, folder: Path | None) -> Exit:
    """Ask the rules every request in CASES, a YAML file, and compare what they say with what it expects.

    Exit code 1 when they differ.
    """
    read = read_cases(cases)
    gate = _gate(terminal.settings(), folder)
    checked = run_cases(gate, read)
    facts = [{"ok": one.ok, **one.model_dump(mode="json")} for one in checked]
    terminal.give({"digest": gate.digest, "cases": facts}, cases_text(str(cases), checked, gate.digest))
    return Exit.done if all(one.ok for one in checked) else Exit.failed


@verb("explain")
@click.argument("run")
@click.argument("step", required=False)
async def explain_command(terminal: Terminal, run: str, step: str | None) -> Exit:
    """Show what the gate decided in RUN, or about STEP (its key, or part of it): which rules, what they saw, under
    which digest, by whose approval."""
    settings = terminal.settings()
    try:
        gate = _gate(settings, None)
    except ConfigError as error:
        gate = None
        terminal.note(f"the project's rules cannot be read, so what they saw is not told apart: {error}")
    async with opened_store(settings) as store:
        found = await explain(store, gate, run, step)
    terminal.give(found, explained_text(found))
    return Exit.done


@verb("replay")
@click.option("--since", type=Duration(), default="7d", show_default=True, help="Requests of this time.")
@_POLICY
@click.option("--limit", type=click.IntRange(1), default=MOST, show_default=True, help="At most so many runs.")
async def replay_command(terminal: Terminal, since: float, folder: Path | None, limit: int) -> Exit:
    """Ask rules again what was asked and recorded, and show what they would have decided otherwise."""
    settings = terminal.settings()
    gate = _gate(settings, folder)
    async with opened_store(settings) as store:
        said = await replay(store, gate, now_ns() - int(since * 1e9), limit)
    terminal.give(said, replayed_text(said))
    return Exit.done


def _gate(settings: Settings, folder: Path | None) -> CedarGate:
    """The gate over a folder's rules or the project's, with the project's roles and without its kill switch."""
    return load_gate(settings.policy_folder if folder is None else folder, roles=settings.roles)


for _command in (check_command, test_command, explain_command, replay_command):
    policy_command.add_command(_command)
