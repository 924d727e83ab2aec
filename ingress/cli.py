"""The command line: which verb is where, and how errors leave.

A verb's module is imported when the verb is used: `retinue --help` loads none of them. Knows no verb's work.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import sys
import traceback

import click

from retinue.host.collector import calm_collector

VERBS: dict[str, tuple[str, str]] = {
    "init": ("init", "Make a project folder: configuration, an agent, a policy, documents, questions."),
    "run": ("run", "Run an agent or a workflow and show its answer."),
    "batch": ("batch", "Run an agent over every row of a file."),
    "up": ("runtime", "Start a runtime that outlives commands."),
    "down": ("runtime", "Stop the runtime."),
    "status": ("runtime", "Show the runtime: supervisor, actors, what they hold, pools and what waits for them."),
    "drain": ("runtime", "Empty an actor, a pool or a node of the runtime without cutting anything off."),
    "ps": ("ps", "List runs, newest first."),
    "inspect": ("inspect", "Show where a run stands and what resuming it would do."),
    "diff": ("diff", "Lay two runs side by side, step by step."),
    "logs": ("logs", "Show what happened in a run, or follow it."),
    "wait": ("wait", "Wait for a run and show its answer."),
    "cancel": ("cancel", "Cancel a run and everything below it."),
    "pause": ("pause", "Hold a run and everything below it."),
    "resume": ("pause", "Let a held run and everything below it go on."),
    "retry": ("retry", "Let a failed run go on from where it failed."),
    "fork": ("fork", "Begin a new run from a step of another."),
    "dlq": ("dlq", "List what was given up, and take it up again."),
    "inbox": ("inbox", "List what runs wait for, with the commands that resolve it."),
    "approve": ("inbox", "Say yes to an approval."),
    "deny": ("inbox", "Say no to an approval."),
    "answer": ("inbox", "Answer a question of a run."),
    "sessions": ("sessions", "List, show and close what runs have open with servers of capabilities."),
    "alerts": ("alerts", "List what somebody should know: waits, failures, breakers, budgets, doubts, lag."),
    "budgets": ("budgets", "Show what tenants have spent, what is reserved, what is left."),
    "memory": ("memory", "List what agents remember, show one memory, or forget it."),
    "policy": ("policy", "Check rules, test them by cases, explain decisions, ask recorded requests again."),
    "rollout": ("rollout", "Let versions of agents and capabilities out: shadow, canary, full, or stop them."),
    "signal": ("signal", "Send an event to a run."),
    "sql": ("sql", "Ask the trace tables."),
    "capabilities": ("capabilities", "List what can be called, and approve the tools of servers."),
    "sandbox": ("sandbox", "Manifests, sandboxes of runs and their snapshots: look, work in them, keep, compare."),
    "tenants": ("tenants", "List whose content is kept, and erase that of a tenant."),
    "mcp": ("mcp", "Serve the runs to agents elsewhere, as an MCP server."),
    "backup": ("backup", "Copy the data folder as of one moment."),
    "restore": ("backup", "Make a data folder of a backup."),
    "store": ("store", "Copy a store into another: from a file to a server, and back."),
    "doctor": ("doctor", "Check this machine and project; tell what is ready for what."),
}
"""Verb to its module below `retinue.ingress.verbs` and its one line of help."""


class Verbs(click.Group):
    """A group that knows its commands by name and loads one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of a day's work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported now; None for a name that is no verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"retinue.ingress.verbs.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with close matches among all verbs."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            raise click.exceptions.NoSuchCommand(name, possibilities=VERBS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, from the table: importing them all would take seconds."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        metadata = importlib.import_module("importlib.metadata")
        click.echo(f"retinue {metadata.version('retinue')}")
        ctx.exit()


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="`retinue VERB --help` tells about one verb. docs/cli.md has all of them, and the exit codes.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """A durable runtime for agent runs."""


def console() -> None:
    """The console script: `main` with the words of this process, which is gone as soon as that has ended.

    Taking an interpreter with all these libraries apart would cost a third of most commands.
    """
    code = 1

    def leave() -> None:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)

    atexit.register(leave)  # the first to be registered is called when all others, and all threads, are done
    calm_collector()
    try:
        main(sys.argv[1:])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def main(given: list[str]) -> None:
    """Do what these words say. Every error leaves here as one message and an exit code (SystemExit)."""
    try:
        cli.main(args=given, prog_name="retinue", standalone_mode=False)
    except BrokenPipeError:
        _let_go_of_output()  # whoever read it went away; nothing is left to tell them
        sys.exit(1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sys.exit(_leave(error, "--json" in given))


def _let_go_of_output() -> None:
    """What is still in its buffer has nowhere to go."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(error: Exception, as_json: bool) -> int:
    exits = importlib.import_module("retinue.ingress.exits")
    terminal = importlib.import_module("retinue.ingress.terminal")
    code = exits.exit_for(error)
    if os.environ.get("RETINUE_DEBUG"):
        traceback.print_exception(error)
    message = _message(error, code == exits.Exit.internal)
    if isinstance(error, terminal.OutputLost):
        _let_go_of_output()
        as_json = False
    if as_json:
        said = {"kind": type(error).__name__, "message": message, "exit": int(code)}
        said |= {name: value for name in ("reason", "run_id") if (value := getattr(error, name, None))}
        click.echo(json.dumps({"error": said}, ensure_ascii=False))
    else:
        click.echo(f"retinue: {terminal.clean(message)}", err=True)
    return int(code)


def _message(error: Exception, internal: bool) -> str:
    if isinstance(error, click.UsageError):
        where = f" (`{error.ctx.command_path} --help` shows how)" if error.ctx else ""
        return f"{error.format_message()}{where}"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if internal:
        return f"internal error: {type(error).__name__}: {error}; RETINUE_DEBUG=1 shows where it was raised"
    return str(error)


if __name__ == "__main__":
    console()
