"""Context packets: what fits into the limit, newest first, with a reason for whatever was cut or left out.

Pure: the same request gives the same packet. Tokens are estimated as a quarter of the UTF-8 bytes plus four
for each message, rounded up. Knows no model, no tool in action and no store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from retinue.runs.contracts import MICROS, Json
from retinue.runs.messages import Message, ToolSpec
from retinue.runs.packets import ContextItem, ContextPacket, ContextRequest, Observation, StateText

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4
"""What a message costs besides its text."""

OLD_RESULT_TOKENS = 160
"""What is kept of an older tool result when the limit is short."""

LEAST_RESULT_TOKENS = 48
"""What is kept of a newest tool result however short the limit is."""

NOTICE_TOKENS = 16
"""What the sentence about messages left out costs at most."""

TOOLS_SHARE = 0.4
"""Share of the limit that tools may take before some are left out."""

STATE_SHARE = 0.5
"""Share of what instructions, goal, input and tools leave that the state in words may take before it is cut."""

FEW = {"steps": 2, "hops": 2, "tokens": 4_000, "micros": 10_000, "seconds": 30}
"""From here on the model is told what remains."""

_CACHED_TOOLS = 1024


def estimate_tokens(text: str) -> int:
    """A quarter of the UTF-8 bytes, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


@dataclass(slots=True)
class _Turn:
    """One message of the conversation and what becomes of it; `shown` is None when it is left out."""

    source: str
    shown: Message | None
    tokens: int
    is_result: bool
    reason: str = ""

    def shorten(self, tokens: int) -> int:
        """Cut its text to about so many tokens; returns the tokens saved."""
        if self.shown is None or self.tokens <= tokens:
            return 0
        text = _shorten(self.shown.content, tokens - MESSAGE_TOKENS)
        before, self.shown = self.tokens, self.shown.model_copy(update={"content": text})
        self.tokens = _count_message(self.shown)
        self.reason = f"shortened from {before} to {self.tokens} tokens"
        return before - self.tokens

    def drop(self, reason: str) -> int:
        """Leave it out; returns the tokens saved."""
        saved, self.shown, self.reason = self.tokens, None, reason
        return saved


@dataclass(slots=True)
class _Exchange:
    """Messages that stand or fall together: a message with tool calls and its replies, or one message."""

    turns: list[_Turn]
    calls: set[str] = field(default_factory=set)

    @property
    def tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns if turn.shown is not None)


class PacketBuilder:
    """Implements `runs.packets.ContextBuilder`."""

    def __init__(self) -> None:
        self._tool_tokens: dict[int, tuple[ToolSpec, int]] = {}

    def build(self, request: ContextRequest) -> ContextPacket:
        """Instructions, goal and input, the state in words, then the conversation; older tool results are
        shortened, then older exchanges left out. Instructions, goal, input, what is firm of the state and the
        newest exchange stay even over the limit.
        """
        tools = self._disclose(request)
        turns = _read_turns(request)
        notes = _Notes(request, turns)
        system, opening = _open(request)
        fixed = _count_message(system) + _count_message(opening)
        fixed += sum(item.tokens for item in tools if item.included)
        state = _State(request.state, int((request.limit - fixed) * STATE_SHARE))
        fixed += state.tokens
        conversation = _group(request.turns, turns)
        wanted = fixed + state.cut + sum(exchange.tokens for exchange in conversation) + notes.whole
        dropped = _fit(conversation, request.limit - fixed - notes.least)
        notes.fill(request.limit - fixed - sum(exchange.tokens for exchange in conversation))
        if dropped:
            system = _append(system, f"({dropped} earlier messages of this run are not shown.)")
        opening = _append(opening, notes.text)
        shown = [turn.shown for exchange in conversation for turn in exchange.turns if turn.shown is not None]
        messages = (system, opening, *state.messages, *shown)
        known = {item.source for item in tools if item.included}
        tokens = sum(map(_count_message, messages)) + sum(item.tokens for item in tools if item.included)
        return ContextPacket(
            messages=messages,
            tools=tuple(tool for tool in request.tools if f"tool:{tool.name}" in known),
            items=(*_fixed_items(request), *tools, *state.items, *map(_turn_item, turns), *notes.items),
            tokens=tokens,
            wanted=wanted,
        )

    def _disclose(self, request: ContextRequest) -> list[ContextItem]:
        """Every tool, unless they take more than their share: then the runtime's own and those in use first."""
        costs = [self._count_tool(tool) for tool in request.tools]
        room = int(request.limit * TOOLS_SHARE)
        if sum(costs) <= room:
            return [_tool_item(tool, cost, True, "") for tool, cost in zip(request.tools, costs, strict=True)]
        used = {call.name for turn in request.turns for call in turn.tool_calls}
        order = sorted(
            range(len(costs)),
            key=lambda index: (not request.tools[index].control, request.tools[index].name not in used, index),
        )
        included = set()
        for index in order:
            if request.tools[index].control or costs[index] <= room:
                included.add(index)
                room -= costs[index]
        reason = f"tools may take {TOOLS_SHARE:.0%} of the limit of {request.limit} tokens"
        return [
            _tool_item(tool, costs[index], index in included, "" if index in included else reason)
            for index, tool in enumerate(request.tools)
        ]

    def _count_tool(self, tool: ToolSpec) -> int:
        known = self._tool_tokens.get(id(tool))
        if known is not None and known[0] is tool:
            return known[1]
        text = tool.name + tool.description + json.dumps(tool.input_schema, ensure_ascii=False)
        tokens = estimate_tokens(text) + MESSAGE_TOKENS
        if len(self._tool_tokens) >= _CACHED_TOOLS:
            self._tool_tokens.clear()
        self._tool_tokens[id(tool)] = (tool, tokens)
        return tokens


class _State:
    """The state in words as one message: firm texts whole, the others within what they leave of `room` tokens."""

    def __init__(self, texts: Sequence[StateText], room: int) -> None:
        self.items: list[ContextItem] = []
        self.cut = 0
        left = room - MESSAGE_TOKENS - sum(estimate_tokens(text.text) + 1 for text in texts if text.firm)
        shown = []
        for text in texts:
            whole = estimate_tokens(text.text)
            said = text.text if text.firm else _shorten(text.text, max(left, LEAST_RESULT_TOKENS))
            tokens = estimate_tokens(said)
            left -= 0 if text.firm else tokens + 1
            self.cut += whole - tokens
            reason = f"shortened from {whole} to {tokens} tokens" if tokens < whole else ""
            item = ContextItem(source=text.source, kind=text.kind, tokens=tokens, reason=reason, fresh_at=text.fresh_at)
            self.items.append(item)
            shown.append(said)
        self.messages = (Message(role="user", content="\n\n".join(shown)),) if shown else ()
        self.tokens = sum(map(_count_message, self.messages))


class _Notes:
    """Observations that no message of the conversation shows (after a reset, a person's note, a refusal)."""

    def __init__(self, request: ContextRequest, turns: Sequence[_Turn]) -> None:
        shown = {turn.source for turn in turns}
        self.items: list[ContextItem] = []
        self.text = ""
        self._unseen: list[tuple[Observation, str]] = []
        for observation in request.observations:
            if _observation_source(observation) in shown:
                continue
            if observation.kind == "model":
                self._list(observation, "", "what the model said is part of the conversation")
            else:
                self._unseen.append((observation, _describe(observation)))
        newest = self._unseen[-1][1] if self._unseen else ""
        self.least = estimate_tokens(newest) + MESSAGE_TOKENS if newest else 0
        self.whole = sum(estimate_tokens(line + "\n") for _, line in self._unseen)

    def fill(self, room: int) -> None:
        """Take the newest that fit into `room` tokens; the newest of all always."""
        lines: list[str] = []
        room -= MESSAGE_TOKENS
        for observation, line in reversed(self._unseen):
            cost = estimate_tokens(line + "\n")
            fits = not lines or cost <= room
            if fits:
                lines.append(line)
                room -= cost
            else:
                room = 0
            self._list(observation, line, "" if fits else "too old for the limit")
        if lines:
            self.text = "\n".join(["Observed so far:", *reversed(lines)])

    def _list(self, observation: Observation, line: str, reason: str) -> None:
        self.items.append(
            ContextItem(
                source=_observation_source(observation),
                kind="observation",
                tokens=estimate_tokens(line),
                included=not reason,
                reason=reason,
            )
        )


def _open(request: ContextRequest) -> tuple[Message, Message]:
    system = Message(role="system", content=request.instructions)
    remaining = _describe_remaining(request.remaining)
    if remaining:
        system = _append(system, remaining)
    parts = [request.goal] if request.goal else []
    if _has_input(request):
        parts.append(_spell_input(request.input))
    return system, Message(role="user", content="\n\n".join(parts))


def _has_input(request: ContextRequest) -> bool:
    return request.input is not None and request.input != request.goal


def _spell_input(value: Json) -> str:
    """Text as it is; an object with one line for each of its fields."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    fields = (f"  {json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in value.items())
    return "{\n" + ",\n".join(fields) + "\n}"


def _describe_remaining(remaining: dict[str, int]) -> str:
    few = {name: left for name, left in remaining.items() if left <= FEW.get(name, -1)}
    if not few:
        return ""
    words = [_describe_limit(name, left) for name, left in sorted(few.items())]
    return f"This run has left: {', '.join(words)}. Finish within that."


def _describe_limit(name: str, left: int) -> str:
    if name == "micros":
        return f"{left / MICROS:.4f} USD"
    word = {"steps": "turn", "hops": "tool call", "tokens": "token", "seconds": "second"}[name]
    return f"{left} {word}" if left == 1 else f"{left} {word}s"


def _describe(observation: Observation) -> str:
    name = f" {observation.name}" if observation.name else ""
    result = "" if observation.result == "ok" else f" ({observation.result})"
    text = observation.summary or json.dumps(observation.data, ensure_ascii=False)
    return f"- {observation.kind}{name}{result}: {_shorten(text, OLD_RESULT_TOKENS)}"


def _read_turns(request: ContextRequest) -> list[_Turn]:
    sources = {o.call_id: _observation_source(o) for o in request.observations if o.call_id is not None}
    turns = []
    for index, message in enumerate(request.turns):
        is_result = message.role == "tool"
        source = sources.get(message.tool_call_id or "") if is_result else None
        turns.append(_Turn(source or f"turn:{index}", message, _count_message(message), is_result))
    return turns


def _group(messages: Sequence[Message], turns: Sequence[_Turn]) -> list[_Exchange]:
    """Exchanges in order. A result joins the newest message that made its call; without one it is left out."""
    exchanges: list[_Exchange] = []
    for message, turn in zip(messages, turns, strict=True):
        if message.role != "tool":
            exchanges.append(_Exchange([turn], {call.id for call in message.tool_calls}))
            continue
        asking = next((one for one in reversed(exchanges) if message.tool_call_id in one.calls), None)
        if asking is None:
            turn.drop("answers no call of the conversation")
        else:
            asking.turns.append(turn)
    return exchanges


def _fit(exchanges: Sequence[_Exchange], room: int) -> int:
    """Shorten, then leave out, oldest first, until the rest fits; returns how many messages were left out."""
    over = sum(exchange.tokens for exchange in exchanges) - room
    over += NOTICE_TOKENS if over > 0 else 0
    dropped = 0
    for exchange in exchanges[:-1]:
        for turn in exchange.turns:
            if over > 0 and turn.is_result:
                over -= turn.shorten(OLD_RESULT_TOKENS)
    for exchange in exchanges[:-1]:
        if over <= 0:
            break
        over -= sum(turn.drop("too old for the limit") for turn in exchange.turns)
        dropped += len(exchange.turns)
    if over > 0 and exchanges:
        _squeeze(exchanges[-1], exchanges[-1].tokens - over)
    return dropped


def _squeeze(exchange: _Exchange, room: int) -> None:
    """Share the room among the texts of one exchange; what is small stays whole."""
    soft = [turn for turn in exchange.turns if turn.shown is not None and turn.shown.role in ("tool", "user")]
    left = room - (exchange.tokens - sum(turn.tokens for turn in soft))
    for done, turn in enumerate(sorted(soft, key=lambda turn: turn.tokens)):
        share = max(left // (len(soft) - done), LEAST_RESULT_TOKENS)
        turn.shorten(share)
        left -= turn.tokens


def _shorten(text: str, tokens: int) -> str:
    """The beginning and the end of a text, with a mark between; itself when it is short enough."""
    before = estimate_tokens(text)
    if before <= tokens:
        return text
    mark = f"\n[... shortened from {before} tokens ...]\n"
    room = max(0, tokens - estimate_tokens(mark)) * BYTES_PER_TOKEN
    data = text.encode("utf-8", "surrogatepass")
    tail = room // 3
    head = data[: room - tail].decode("utf-8", "ignore")
    return head + mark + (data[len(data) - tail :].decode("utf-8", "ignore") if tail else "")


def _append(message: Message, text: str) -> Message:
    if not text:
        return message
    content = f"{message.content}\n\n{text}" if message.content else text
    return message.model_copy(update={"content": content})


def _count_message(message: Message) -> int:
    tokens = MESSAGE_TOKENS + estimate_tokens(message.content)
    for call in message.tool_calls:
        arguments = call.raw or json.dumps(call.arguments, ensure_ascii=False)
        tokens += MESSAGE_TOKENS + estimate_tokens(call.name + arguments)
    return tokens


def _fixed_items(request: ContextRequest) -> Iterator[ContextItem]:
    yield ContextItem(
        source=request.instructions_source, kind="instructions", tokens=estimate_tokens(request.instructions)
    )
    yield ContextItem(source="goal", kind="goal", tokens=estimate_tokens(request.goal))
    if _has_input(request):
        yield ContextItem(source="input", kind="input", tokens=estimate_tokens(_spell_input(request.input)))


def _tool_item(tool: ToolSpec, tokens: int, included: bool, reason: str) -> ContextItem:
    return ContextItem(source=f"tool:{tool.name}", kind="tool", tokens=tokens, included=included, reason=reason)


def _turn_item(turn: _Turn) -> ContextItem:
    return ContextItem(
        source=turn.source,
        kind="observation" if turn.source.startswith("observation:") else "message",
        tokens=turn.tokens,
        included=turn.shown is not None,
        reason=turn.reason,
    )


def _observation_source(observation: Observation) -> str:
    return f"observation:{observation.id}"
