"""The research example, each row between writes that leave a line on disk: a project's module, copied beside agents.py.

What this process is refused by the store is written to a log of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from pathlib import Path

from agents import Answer, Question, research
from tests.chaos.work import LOG, file, once, put

from retinue import Context, tool, workflow
from retinue.runs.errors import SideEffectUnknown


def keep_log(folder: Path) -> None:
    """What the engine says in this process, in a file that names the machine and the process."""
    handler = logging.FileHandler(folder / f"said-{socket.gethostname()}-{os.getpid()}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger = logging.getLogger("retinue")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


@tool(side_effect="read", timeout=60)
async def ponder(question: str) -> int:
    """Takes a moment; every tenth time longer than a lease: a machine that is cut off is in the middle of it."""
    await asyncio.sleep(random.uniform(8, 20) if random.random() < 0.1 else random.uniform(0, 2))
    return len(question)


@workflow
async def watched(ctx: Context, question: Question) -> Answer:
    """Answer a question between writes of each contract."""
    await ctx.call(put, text=f"asked-{question.id}")
    await ctx.call(ponder, question=question.question)
    answer = Answer.model_validate(await ctx.run(research, question.model_dump()))
    await ctx.call(file, text=f"filed-{question.id}")
    try:
        await ctx.call(once, text=f"once-{question.id}")
    except SideEffectUnknown:
        return answer
    return answer


keep_log(Path(os.environ[LOG]).parent)
