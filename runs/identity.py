"""Names that must come out the same whenever they are computed: of children, steps, arguments, effects.

Pure. Random ids for new root runs are made by the composition root.
"""

from __future__ import annotations

from hashlib import blake2b

from pydantic_core import to_json

from retinue.runs.contracts import Json

APPROVAL, DOUBT = "!approval", "!doubt"
"""What the runtime's own questions about a step add to its key; steps inside a step have other keys with `!`."""
ELICITED, SAMPLED = "!elicited:", "!sampled:"
"""What a server's question to a person or to a model adds, with the question's digest behind it."""


def is_question(key: str) -> bool:
    """True of the key of one of the runtime's own questions, or of a server's to a person."""
    return key.endswith((APPROVAL, DOUBT)) or ELICITED in key


def session_id(run_id: str, server: str, number: int) -> str:
    """The id of a run's how-many-th capability session with a server: 24 hex digits."""
    return _hash(f"{run_id}\0session\0{server}\0{number}".encode(), 12)


def sandbox_id(run_id: str, key: str) -> str:
    """The id of the sandbox that a step opened, or (`key` is a sandbox's) of a fork's own: 24 hex digits."""
    return _hash(run_id.encode(), 4) + _hash(f"{run_id}\0sandbox\0{key}".encode(), 8)


def is_sandbox_of(run_id: str, sandbox: str) -> bool:
    """Whether a sandbox of this id is the run's own, and not one of the run that it was forked from."""
    return sandbox.startswith(_hash(run_id.encode(), 4))


def step_of(key: str) -> str:
    """The key of the step that a question is about, however often it was put; of another key the key itself."""
    while is_question(key):
        key = key.partition(ELICITED)[0].removesuffix(APPROVAL).removesuffix(DOUBT)
    return key


def child_id(parent_run_id: str, key: str, index: int) -> str:
    """The id of a child: 32 hex digits from its parent, the step that made it and its place."""
    return _hash(f"{parent_run_id}\0{key}\0{index}".encode(), 16)


def digest_of(value: Json) -> str:
    """A short hash of arguments: 24 hex digits over their JSON."""
    return _hash(to_json(value), 12)


def effect_key(effect_scope: str, step_key: str) -> str:
    """The idempotency key of an effect: stable over retries and owners, new in a fork."""
    return _hash(f"{effect_scope}\0{step_key}".encode(), 16)


def _hash(data: bytes, size: int) -> str:
    return blake2b(data, digest_size=size).hexdigest()
