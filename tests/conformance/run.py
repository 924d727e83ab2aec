"""Run the official MCP conformance suite, one scenario at a time, and write docs/conformance.md.

    python -m tests.conformance.run [--only PART] [--no-write]

Client scenarios go through `tests.conformance.client`, server scenarios against `retinue mcp --http`. Ends with 1 when
a check fails that is not among those of `plan.BY_INTENT`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.plan import BY_INTENT, CLIENT, NOT_CLIENT, NOT_SERVED, SERVER, TOOLS
from tests.conformance.suite import NODE_VERSION, SUITE, SUITE_VERSION, Check, Suite, environment, installed

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
BOUND = 90.0
PASSED, COUNTED = {"SUCCESS"}, {"SUCCESS", "FAILURE", "WARNING"}
RETINUE = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]


@dataclass(frozen=True)
class Result:
    """What came of a scenario at a revision; `surprises` are checks that should have passed."""

    scenario: str
    version: str
    checks: list[Check]
    printed: str

    @property
    def counted(self) -> list[Check]:
        return [check for check in self.checks if check.status in COUNTED]

    @property
    def misses(self) -> list[Check]:
        return [check for check in self.counted if check.status not in PASSED]

    @property
    def surprises(self) -> list[Check]:
        if not self.counted:
            return [Check("nothing", "FAILURE", "no check was made")]
        return [check for check in self.misses if check.name not in BY_INTENT]

    @property
    def row(self) -> str:
        notes = dict.fromkeys(BY_INTENT.get(check.name) or f"{check.name}: {check.said}" for check in self.misses)
        skipped = sum(check.status == "SKIPPED" for check in self.checks)
        told = [*notes, *([f"{skipped} of what it does not use skipped"] if skipped else [])]
        passed = len(self.counted) - len(self.misses)
        return f"| `{self.scenario}` | {self.version} | {passed} of {len(self.counted)} | {'; '.join(told)} |"


def run_client(suite: Suite, scenario: str, version: str, out: Path) -> Result:
    """One scenario of the client; a client that ends with an error is a failed check."""
    command = shlex.join([sys.executable, "-m", "tests.conformance.client"])
    words = ["client", "--command", command, "--scenario", scenario, "--spec-version", version]
    checks, printed = suite.run(words, out, environment(), BOUND)
    if "OVERALL: FAILED" in printed and not any(check.status == "FAILURE" for check in checks):
        checks.append(Check("client-ends-well", "FAILURE", printed.split("Stderr:")[-1].strip()[:300]))
    return Result(scenario, version, checks, printed)


def run_server(suite: Suite, url: str, scenario: str, version: str, out: Path) -> Result:
    """One scenario of the server."""
    words = ["server", "--url", url, "--scenario", scenario]
    if not scenario.startswith("tasks-"):
        words += ["--spec-version", version, "--force"]
    return Result(scenario, version, *suite.run(words, out, environment(), BOUND))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `retinue mcp` over the suite's workflows."""
    (folder / "retinue.yaml").write_text("modules: [tests.conformance.project]\nprincipal: ana\n")
    tools = [word for name in TOOLS for word in ("--tool", name)]
    process = subprocess.Popen(
        [*RETINUE, "mcp", "--local", "--http", "127.0.0.1:0", "--json", *tools],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def all_results(suite: Suite, only: str) -> tuple[list[Result], list[Result]]:
    """Client and server results of the scenarios whose name contains `only`."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        clients = [
            told(run_client(suite, name, version, out / f"client-{name.replace('/', '-')}-{version}"))
            for name, versions in CLIENT.items()
            for version in versions
            if only in name
        ]
        wanted = [(name, version) for name, versions in SERVER.items() for version in versions if only in name]
        if not wanted:
            return clients, []
        (out / "project").mkdir()
        with served(out / "project") as url:
            return clients, [
                told(run_server(suite, url, *each, out / f"server-{each[0]}-{each[1]}")) for each in wanted
            ]


def told(result: Result) -> Result:
    """Say how it went."""
    print(result.row, flush=True)
    for check in result.surprises:
        print(f"    {check.status} {check.name}: {check.said}", flush=True)
    return result


def page(clients: list[Result], servers: list[Result]) -> str:
    """The document."""
    versions = f"`{SUITE}` {SUITE_VERSION}, the SDK `mcp` {importlib.metadata.version('mcp')}"
    head = "| scenario | revision | checks passed | notes |\n|---|---|---|---|"
    return f"""# Conformance to MCP

Written by `make conformance`: the official suite ({versions}), one scenario at a time, through what a run uses. The
suite and a Node.js that it needs ({NODE_VERSION}, where there is none of 22 or newer) are kept in a cache folder.

A check that does not pass is either named here with a reason or ends the command with an error.

## As a client

`tests/conformance/client.py` calls what a scenario offers through Retinue's own connections to servers; it speaks no
protocol itself. Tools are pinned first, questions are answered as a person would who accepts what is proposed.

{head}
{_rows(clients)}

Every scenario for clients that is neither about authorization nor about skills is in the table, at each of the two
revisions that has it. The suite has none for the loss of a session, for going on in another process, or for tasks as a
client: those are tests of Retinue's own.

{_left_out(NOT_CLIENT)}

## As a server

`retinue mcp --http` over a project of workflows (`tests/conformance/project.py`), each a tool of its own (`--tool`).

{head}
{_rows(servers)}

{_left_out(NOT_SERVED)}
"""


def _rows(results: list[Result]) -> str:
    return "\n".join(result.row for result in results)


def _left_out(reasons: dict[str, str]) -> str:
    rows = "\n".join(f"| {name if '`' in name else f'`{name}`'} | {why} |" for name, why in reasons.items())
    return f"| not run | why |\n|---|---|\n{rows}"


def main() -> int:
    """Run, tell, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only scenarios whose name contains this; nothing is written")
    parser.add_argument("--no-write", action="store_true", help="leave the document as it is")
    given = parser.parse_args()
    clients, servers = all_results(installed(), given.only)
    if not given.only and not given.no_write:
        PAGE.write_text(page(clients, servers), encoding="utf-8")
    return 1 if any(result.surprises for result in (*clients, *servers)) else 0


if __name__ == "__main__":
    sys.exit(main())
