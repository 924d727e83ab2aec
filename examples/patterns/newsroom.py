"""The seven patterns in a newsroom. docs/patterns.md explains each part of this module."""

from typing import Any

from pydantic import BaseModel

from retinue import (
    Context,
    agent,
    best_effort,
    chain,
    handoff,
    orchestrate,
    parallel,
    refine,
    route,
    vote,
    workflow,
)

outline = agent("outline", "Outline an article on the topic.")
draft = agent("draft", "Write the article of this outline.")
polish = agent("polish", "Polish the language of the article.")


def too_thin(text: str) -> str | None:
    return None if text.count(";") >= 2 else "an outline has at least three points"


article = chain("article", outline, draft, polish, checks={"outline": too_thin})

sorter = agent("sorter", "Is this letter a complaint or praise? Answer with one word.")
complaints = agent("complaints", "Answer the complaint.")
thanks = agent("thanks", "Thank the reader.")
clerk = agent("clerk", "Answer the letter.")

letters = route("letters", sorter, {"complaint": complaints, "praise": thanks}, default=clerk)

facts = agent("facts", "Check every number of the text.")
style = agent("style", "Mark long sentences.")
law = agent("law", "Name what could bring us to court.")

review = parallel("review", {"facts": facts, "style": style, "law": law}, join=best_effort("5m"))


class Ballot(BaseModel):
    publish: bool
    why: str


juror = agent("juror", "Should this be published?", output=Ballot)


def seat(text: str, index: int) -> str:
    return f"seat {index}: {text}"


jury = vote("jury", juror, count=5, need=3, by="publish", vary=seat)


class Plan(BaseModel):
    parts: list[str]


planner = agent("planner", "Split the question into parts for reporters.", output=Plan)
reporter = agent("reporter", "Find out about this part.")
editor = agent("editor", "Write the answer from the findings; say what is missing.")

story = orchestrate("story", planner, reporter, editor, join=best_effort("5m"), width=8)


class Critique(BaseModel):
    score: float
    feedback: str


author = agent("author", "Write a headline.")
reviser = agent("reviser", "Write the headline again, following the critique.")
critic = agent("critic", "Judge the headline from 0 to 1.", output=Critique)


@workflow
async def headline_writer(ctx: Context, given: dict[str, Any]) -> str:
    if "draft" not in given:
        return str(await ctx.run(author, given["task"]))
    return str(await ctx.run(reviser, {"text": given["draft"], "critique": given["critique"]}))


@workflow
async def headline_critic(ctx: Context, given: dict[str, Any]) -> Critique:
    return Critique.model_validate(await ctx.run(critic, given["draft"]))


headline = refine("headline", headline_writer, headline_critic, rounds=4, accept=0.8)

reception = agent("reception", "Find out who can help the reader.", handoffs=["subscriptions"])
subscriptions = agent("subscriptions", "Help with subscriptions.", handoffs=["accounts"])
accounts = agent("accounts", "Help with bills.", handoffs=["reception"])

desk = handoff("desk", reception, subscriptions, accounts, most=4)
