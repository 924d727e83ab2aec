"""How an agent's state gets shorter and loses nothing that is needed: compaction, a fresh state, the artifact.

Pure: states in, states out, no model asked. What leaves the conversation is folded into a recap; the texts of
tools and people go on as pages, which quotes are checked against. Knows no context and no journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from retinue.runs.agent_state import AgentState, bind
from retinue.runs.artifacts import Artifact, Deed, Evidence, Origin, Recap, find_evidence, merge, one_line
from retinue.runs.contracts import Json
from retinue.runs.identity import digest_of
from retinue.runs.messages import Message, ToolCall
from retinue.runs.obligations import open_ones

_LEAST_TURNS = 2
"""Fewer turns than this are not worth a compaction."""

_PAGE = "evidence"
_PAGES = 8
_ARGUMENTS = 80
_SHARE = 12
"""Deeds, and passages, of a recap each take about one part in so many of the limit."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a compaction took out of the conversation: hashes of the messages, first and last turn."""

    hashes: tuple[str, ...]
    first: int
    last: int


def compact(state: AgentState, keep_turns: int, limit: int) -> tuple[AgentState, Dropped] | None:
    """The state with all but the newest turns folded into its recap. None when too little would go.

    `limit` is the packet's limit in tokens; the recap takes a fixed share of it.
    """
    messages = state.conversation
    starts = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if len(starts) < keep_turns + _LEAST_TURNS:
        return None
    cut = starts[-keep_turns]
    recap, seen = _recap(state, messages[:cut])
    whole = merge(state.recap, recap, limit // _SHARE)
    pages = bind(state.artifact, whole, _archive(state.pages, messages[:cut]))
    short = state.model_copy(
        update={
            "messages": (*pages, *messages[cut:]),
            "archived": len(pages),
            "observed": state.observed[seen:],
            "folded": state.folded + seen,
            "obligations": open_ones(state.obligations),
            "compactions": state.compactions + 1,
            "shortened": state.shortened + 1,
        }
    )
    return short, Dropped(tuple(map(_hash, messages[:cut])), recap.first, recap.last)


def begin_fresh(state: AgentState, artifact: Artifact, turn: int) -> AgentState:
    """The state of an agent that starts again from an artifact: no conversation, the same debts and evidence."""
    pages = bind(artifact, None, _archive(state.pages, state.conversation))
    return AgentState(
        goal=state.goal,
        turn=turn,
        corrections=state.corrections,
        messages=pages,
        archived=len(pages),
        folded=state.folded + len(state.observed),
        obligations=open_ones(state.obligations),
        owed=state.owed,
        next_steps=state.next_steps,
        reminded=state.reminded,
        problems=state.problems,
        confidence=state.confidence,
        shortened=state.shortened,
        resets=state.resets + 1,
        fresh_at=turn,
    )


def write_artifact(
    state: AgentState, kind: Literal["handoff", "reset"], origin: Origin, limit: int, **more: Json
) -> Artifact:
    """All that another agent needs to go on from here; `more` fills `notes`, `input` or `artifact`."""
    before = state.artifact
    room = limit // _SHARE
    recap = merge(_signed(before), state.recap, room)
    if state.conversation:
        recap = merge(recap, _recap(state, state.conversation)[0], room)
    kept = {} if before is None else {"input": before.input, "artifact": before.artifact, "notes": before.notes}
    return Artifact(
        kind=kind,
        goal=state.goal,
        origin=origin,
        recap=recap,
        obligations=open_ones(state.obligations),
        next_steps=state.next_steps,
        evaluation=state.evaluation,
        **{**kept, **{name: value for name, value in more.items() if value}},
    )


def _signed(artifact: Artifact | None) -> Recap | None:
    """The recap that a state began with; what another agent did bears that agent's name."""
    if artifact is None or artifact.recap is None or artifact.kind == "reset":
        return artifact.recap if artifact else None
    who = artifact.origin.agent
    deeds = (deed.model_copy(update={"agent": deed.agent or who}) for deed in artifact.recap.deeds)
    return artifact.recap.model_copy(update={"deeds": tuple(deeds)})


def _recap(state: AgentState, messages: Iterable[Message]) -> tuple[Recap, int]:
    """What these first messages of the conversation tell, and how many observations they hold."""
    deeds: list[Deed] = []
    evidence: list[Evidence] = []
    calls: dict[str | None, ToolCall] = {}
    seen, turn = 0, state.observed[0].turn if state.observed else state.turn
    for message in messages:
        if message.role == "tool":
            observation = state.observed[seen]
            seen, turn = seen + 1, observation.turn
            call = calls.get(message.tool_call_id)
            deeds.append(
                Deed(
                    turn=turn,
                    name=observation.name,
                    arguments=_spell(call.arguments if call else None),
                    observation=observation.id,
                    result=observation.result,
                    summary=observation.summary or one_line(message.content),
                )
            )
            evidence += find_evidence(observation.id, message.content)
        elif message.role == "assistant":
            calls |= {call.id: call for call in message.tool_calls}
        else:
            deeds.append(Deed(turn=turn, name="correction", result="refused", summary=one_line(message.content)))
    first = min((deed.turn for deed in deeds), default=turn)
    return Recap(first=first, last=turn, deeds=tuple(deeds), evidence=tuple(evidence)), seen


def _archive(pages: tuple[Message, ...], messages: Iterable[Message]) -> tuple[Message, ...]:
    """The pages of texts with one more, of what none holds yet; eight pages of one size become one of the next.

    So their number grows with the logarithm of the history, and each text is written again about as often.
    """
    pages = tuple(page for page in pages if page.role == "tool")
    texts = dict.fromkeys(message.content for message in messages if message.role == "tool")
    fresh = [text for text in texts if text and not any(text in page.content for page in pages)]
    if not fresh:
        return pages
    result = [*pages, _page(0, fresh)]
    while (rank := _rank(result[-1])) is not None and _full(result, rank):
        merged = [page.content for page in result[-_PAGES:]]
        result[-_PAGES:] = [_page(rank + 1, merged)]
    return tuple(result)


def _page(rank: int, texts: list[str]) -> Message:
    return Message(role="tool", name=f"{_PAGE}:{rank}", content="\n".join(texts))


def _rank(page: Message) -> int | None:
    rank = (page.name or "").removeprefix(f"{_PAGE}:")
    return int(rank) if rank.isdigit() else None


def _full(pages: list[Message], rank: int) -> bool:
    return len(pages) >= _PAGES and all(_rank(page) == rank for page in pages[-_PAGES:])


def _spell(arguments: dict[str, Json] | None) -> str:
    words = ", ".join(f"{name}={value!r}" for name, value in (arguments or {}).items())
    return one_line(words, _ARGUMENTS)


def _hash(message: Message) -> str:
    return digest_of(message.model_dump(mode="json", exclude_defaults=True))
