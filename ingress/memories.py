"""What is remembered, for people: listed, shown, forgotten through the store alone. Knows no terminal."""

from __future__ import annotations

from pydantic_core import to_json

from retinue.host.opening import opened_store
from retinue.host.settings import Settings
from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.memories import Space
from retinue.store.memories import Kept, Listing
from retinue.store.store import Store


class Remembered(Frozen):
    """A memory with its origin; what has ended has no content. Times are Unix ns."""

    memory_id: str
    tenant: str
    scope: str
    owner: str
    state: str
    content: Json
    key: str | None
    tags: tuple[str, ...]
    at: int
    expires_at: int | None
    run_id: str
    step: str
    agent: str
    version: str
    principal: str

    @property
    def space(self) -> str:
        """Whose it is, in words."""
        return f"{self.scope} {self.owner}".strip()

    @property
    def text(self) -> str:
        """The content in words."""
        return self.content if isinstance(self.content, str) else to_json(self.content).decode()


async def remembered(settings: Settings, listing: Listing) -> list[Remembered]:
    """Memories, newest first; a run is found by an unambiguous part of its id."""
    async with opened_store(settings) as store:
        if listing.run_id is not None:
            full_id = (await store.get(listing.run_id)).run_id
            listing = Listing(**{**_fields(listing), "run_id": full_id})
        return [_remembered(one) for one in await store.memories.listed(listing)]


async def find(settings: Settings, name: str) -> Remembered:
    """The memory of an id, or of the beginning of one. UnknownName when there is none, or more than one."""
    async with opened_store(settings) as store:
        return await _find(store, name)


async def forget(settings: Settings, name: str, by: str | None, at: int) -> Remembered:
    """Take a memory's content away; the memory as it was. InvalidInput when it has ended already."""
    async with opened_store(settings) as store:
        found = await _find(store, name)
        space = Space.model_validate({"scope": found.scope, "owner": found.owner})
        who = f"person:{by or settings.principal}:{at}"
        if not await store.memories.forget(found.tenant, space, found.memory_id, who, at):
            raise InvalidInput(f"memory {found.memory_id} is {found.state} already")
        return found.model_copy(update={"state": "forgotten", "content": None})


async def _find(store: Store, name: str) -> Remembered:
    found = await store.memories.get(name)
    if len(found) != 1:
        what = f"{len(found)} memories match" if found else "there is no memory"
        raise UnknownName(f"{what} {name!r}: `retinue memory list --all --json` has the ids")
    return _remembered(found[0])


def _fields(listing: Listing) -> dict[str, Json]:
    return {name: getattr(listing, name) for name in Listing.__dataclass_fields__}


def _remembered(kept: Kept) -> Remembered:
    memory = kept.memory
    return Remembered(
        tenant=kept.tenant_id,
        state=kept.state,
        scope=memory.space.scope,
        owner=memory.space.owner,
        **memory.model_dump(exclude={"space", "score"}),
    )
