"""Orchestrator-worker research over a folder of documents: plan, search in parallel, write with citations.

`research` is the workflow to run: `retinue batch research --input questions.jsonl --output answers.jsonl`.
The same agents work on any folder; RESEARCH_DOCUMENTS names another one than the example's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel, Field

from retinue import Budget, Context, agent, best_effort, document_tools, prompt, tool, workflow

HERE = Path(__file__).parent
DOCUMENTS = Path(os.environ.get("RESEARCH_DOCUMENTS", HERE / "documents"))
DATA = Path(os.environ.get("RETINUE_DATA", HERE / ".retinue"))


class Question(BaseModel):
    """A row of the input."""

    model_config = {"extra": "ignore"}
    id: str | None = None
    question: str = Field(min_length=1)


class Plan(BaseModel):
    """What has to be found out, as questions that can be searched for alone."""

    parts: list[str]


class Citation(BaseModel):
    """A place in a document: characters `start` to `end` of its text are the quote."""

    document: str
    start: int
    end: int
    quote: str


class Finding(BaseModel):
    """What a worker found for one part."""

    answer: str
    citations: list[Citation]


class Answer(BaseModel):
    """What the writer says, and where it stands."""

    answer: str
    citations: list[Citation]
    confidence: float = 0.0


search, read = document_tools(DOCUMENTS, DATA / "index")


@tool(side_effect="write", idempotency="idempotent")
def remember_sources(question: str, documents: list[str], *, key: str) -> int:
    """Note which documents served a question; the key makes a repeated note the same note."""
    folder = DATA / "memory"
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{key}.json"
    draft = note.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"question": question, "documents": documents}))
    draft.rename(note)
    return len(documents)


@workflow
async def note_sources(ctx: Context, done: dict) -> int:
    """Runs after an answer: the project remembers which documents served which question."""
    documents = sorted({citation["document"] for citation in done["output"]["citations"]})
    return await ctx.call(remember_sources, question=done["input"]["question"], documents=documents)


planner = agent("planner", prompt("planner/v1"), output=Plan, budget=Budget(steps=3))
researcher = agent(
    "researcher", prompt("researcher/v1"), tools=[search, read], output=Finding, budget=Budget(steps=8, hops=8)
)
writer = agent("writer", prompt("writer/v1"), output=Answer, budget=Budget(steps=3))


@workflow(follow_ups=[note_sources])
async def research(ctx: Context, question: Question) -> Answer:
    """Answer a question from the documents, with citations."""
    plan = await ctx.run(planner, question.question)
    parts = list(dict.fromkeys(plan.parts))[:4] or [question.question]
    found = await ctx.map(researcher, [{"question": part} for part in parts], join=best_effort("5m"))
    findings = [branch.value for branch in found if branch.ok]
    return await ctx.run(writer, {"question": question.question, "findings": findings})
