"""A runtime tells of its alerts: the process that keeps the traces posts them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.doubles.projects import project
from tests.doubles.receiver import receiver

from retinue.ingress.connecting import connect
from retinue.runs.errors import RunFailed

FLOW = """
from retinue import Context, workflow
from retinue.runs.errors import BudgetExhausted


@workflow
async def broke(ctx: Context, given: str) -> None:
    raise BudgetExhausted("no money left")
"""


@pytest.mark.promise("K5")
async def test_a_runtime_posts_what_somebody_should_know(tmp_path: Path) -> None:
    (tmp_path / "broke_on_ray.py").write_text(FLOW)
    async with receiver() as hook:
        given = {"alerts": {"webhook": hook.url, "every": 0.2}, "actors": {"workers": 1}}
        settings = project(tmp_path, modules=["broke_on_ray"], settings=given)
        async with connect(settings=settings) as client:
            run = await client.submit("broke", "x")
            with pytest.raises(RunFailed):
                await run.result(timeout=60)
            async with asyncio.timeout(30):
                await hook.came.wait()
        assert [(post.json["kind"], post.json["subject"]) for post in hook.posts] == [("budget", run.run_id)]
