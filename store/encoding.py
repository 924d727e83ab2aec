"""What is done of a write before its transaction begins: frames encoded, children, prompts and letters sealed.

Touches no connection and no disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.journal import Accepted, Parked
from retinue.runs.ownership import Append, DeadLetter, NewRun, Spawn
from retinue.runs.sessions import SessionRow
from retinue.store.frames import Encoded, FrameCodec, bound_to

_FEW_CHILDREN = 4
SealedRow = tuple[SessionRow, bytes | None]
"""A session with its tokens sealed."""


@dataclass(frozen=True, slots=True)
class EncodedAppend:
    """An append with everything expensive already done: frames encoded, children and prompts sealed."""

    append: Append
    codec: FrameCodec
    frame: Encoded
    parked: Encoded | None
    children: tuple[tuple[Encoded, ...], ...]
    rejected: tuple[bytes | None, ...]
    prompt: bytes | None
    sessions: tuple[SealedRow, ...] = ()

    @property
    def checkpoint(self) -> int | None:
        """The position that replay begins at from now on, when the append holds a checkpoint."""
        holds = any(entry.kind == "checkpoint" for entry in self.append.entries)
        return self.append.expected + 1 if holds else None

    @property
    def brief(self) -> bool:
        """Whether it touches only a few rows, so that nobody is kept waiting by it."""
        spawn = self.append.spawn
        return len(self.children) <= _FEW_CHILDREN and not (spawn is not None and spawn.cancel_rest)


def encode_append(codec: FrameCodec, append: Append) -> EncodedAppend:
    """Do outside the transaction what needs no connection."""
    entries = append.entries
    parked = None
    if entries and isinstance(entries[-1], Parked):
        bound = bound_to(append.run_id, append.expected + len(entries))
        parked = codec.encode(append.tenant_id, bound, entries[-1:])
        entries = entries[:-1]
    spawn = append.spawn or Spawn("")
    request = append.request
    return EncodedAppend(
        append,
        codec,
        codec.encode(append.tenant_id, bound_to(append.run_id, append.expected + 1), entries),
        parked,
        tuple(encode_new(codec, child) for child in spawn.children),
        tuple(seal_letter(codec, append.tenant_id, letter) for letter in spawn.rejected),
        None if request is None else codec.seal(append.tenant_id, _words(request), request.request_id),
        tuple(seal_session(codec, append.tenant_id, row) for row in append.sessions),
    )


def _words(request: PendingRequest) -> Json:
    """What is said to a person: the prompt, and what the answer has to be where a server asks."""
    return request.prompt if not request.asked else {"prompt": request.prompt, "asked": request.asked}


def encode_new(codec: FrameCodec, new: NewRun) -> tuple[Encoded, ...]:
    """The first frame of a run, and one for the past it begins with."""
    request = new.request
    first = codec.encode(
        request.tenant_id, bound_to(request.run_id, 1), (Accepted(at=new.at, content=new.input, request=request),)
    )
    if not new.past:
        return (first,)
    return (first, codec.encode(request.tenant_id, bound_to(request.run_id, 2), new.past))


def seal_letter(codec: FrameCodec, tenant_id: str, letter: DeadLetter) -> bytes | None:
    """The content of a dead letter, sealed under where it came from."""
    return None if letter.content is None else codec.seal(tenant_id, letter.content, f"{letter.source}:{letter.line}")


def seal_session(codec: FrameCodec, tenant_id: str, row: SessionRow) -> SealedRow:
    """Seal what the calls of a session can be continued with; nothing where there is none."""
    tokens = dict(row.tokens)
    return row, codec.seal(tenant_id, tokens, f"session:{row.session.session_id}") if tokens else None
