"""A project whose runs fail until it is repaired, post, wait and fan out; and what commands make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.doubles.projects import ALLOW_ALL, script

from retinue.ingress.exits import Exit

if TYPE_CHECKING:
    from tests.unit.ingress.conftest import Command

FLOWS = """
from pathlib import Path

from retinue import Context, agent, tool, workflow
from retinue.runs.errors import PermanentError

HERE = Path(__file__).parent


@tool(side_effect="write", idempotency="idempotent")
def post(text: str, *, key: str) -> str:
    \"\"\"Posts.\"\"\"
    with (HERE / "posted").open("a") as file:
        file.write(f"{text} {key}\\n")
    return text


@tool(side_effect="read")
def look(text: str) -> str:
    \"\"\"Looks.\"\"\"
    if text.startswith("bad") and not (HERE / "repaired").exists():
        raise PermanentError(f"no map of {text}", code="missing")
    return text.upper()


@workflow(queue="maps")
async def line(ctx: Context, text: str) -> str:
    await ctx.call(post, text=text)
    return await ctx.call(look, text=text)


@workflow
async def lines(ctx: Context, texts: list[str]) -> list[str]:
    return [await ctx.run(line, text) for text in texts]


@workflow
async def one(ctx: Context, number: int) -> int:
    return number


@workflow
async def many(ctx: Context, count: int) -> str:
    branches = await ctx.map(one, list(range(count)))
    return await ctx.call(look, text=f"{sum(branch.value for branch in branches)}")


@workflow
async def patient(ctx: Context, text: str) -> str:
    return text + await ctx.ask("And?")


@workflow
async def pages(ctx: Context, last: int, state: int | None) -> int:
    page = state or 0
    return page if page == last else await ctx.checkpoint("page", page + 1)


@workflow(version="1")
async def pinned(ctx: Context, text: str) -> str:
    return await ctx.call(look, text=text)
"""


SETTINGS = {
    "modules": ["steering_flows"],
    "default_model": "scripted:model.jsonl",
    "limits": {"queues": {"maps": {"concurrency": 8}}},
}


@contextmanager
def steered(folder: Path) -> Iterator[Path]:
    """The project, which is the current folder meanwhile."""
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "rules.cedar").write_text(ALLOW_ALL)
    script(folder)
    (folder / "steering_flows.py").write_text(FLOWS)
    (folder / "retinue.yaml").write_text(json.dumps(SETTINGS))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def begin_anew(project: Path) -> Path:
    """The project, nothing repaired and nothing posted."""
    for name in ("repaired", "posted"):
        (project / name).unlink(missing_ok=True)
    return project


def repair(project: Path) -> None:
    """The cause of the failures is gone."""
    (project / "repaired").touch()


def failed(retinue: Command, target: str, value: object, *more: str) -> str:
    """A run that has failed; its id."""
    said = retinue("run", target, "--input", json.dumps(value), "--local", "--json", *more)
    assert said.code == Exit.failed
    return str(said.json["run_id"])


def completed(retinue: Command, target: str, value: object) -> str:
    """A run that has completed; its id."""
    said = retinue("run", target, "--input", json.dumps(value), "--local", "--json")
    assert said.code == Exit.done
    return str(said.json["run_id"])


def record(retinue: Command, run_id: str) -> dict[str, object]:
    """The record of a run."""
    return dict(retinue("inspect", run_id, "--json").json["record"])
