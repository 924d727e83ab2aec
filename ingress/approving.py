"""Whether somebody may say yes to an approval, and with which arguments: told at once, not only when it is used.

What is asked here is asked again when the call is made. Knows no rule: a request says who may approve it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from retinue.runs.asked import of_memory
from retinue.runs.contracts import Json, PendingRequest
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import Intent
from retinue.runs.memories import problem_of
from retinue.store.store import Store


def check_approver(request: PendingRequest, by: str, roles: Mapping[str, Collection[str]]) -> None:
    """Raise InvalidInput where a yes of `by` would count for nothing; `roles` says who has which."""
    approver = request.facts.get("approver")
    if not isinstance(approver, dict):
        return
    if by == request.facts.get("requester") and not approver.get("requester"):
        raise InvalidInput(
            f"request {request.request_id}: {by} asked for it and cannot approve it alone: somebody else has to say "
            "yes (--by NAME)"
        )
    for role in approver.get("roles") or ():
        if by not in roles.get(role, ()):
            names = ", ".join(roles.get(role, ())) or "nobody: `roles:` of retinue.yaml does not name it"
            raise InvalidInput(
                f"request {request.request_id}: a yes needs the role {role}, which {by} does not have; have it: {names}"
            )


def check_edit(request: PendingRequest, arguments: Json) -> None:
    """Raise InvalidInput where a request is not about the arguments of a call, or these are none."""
    if request.kind != "approval" or "capability" not in request.facts:
        raise InvalidInput(f"request {request.request_id} is not about a call: it has no arguments to change")
    if not isinstance(arguments, dict) or not arguments:
        raise InvalidInput(f'the arguments to change must be an object such as {{"amount": 50}}, not {arguments!r}')


def check_memory(request: PendingRequest, changed: dict[str, Json]) -> bool:
    """True of a request about a memory; InvalidInput when it could not be kept as it was changed."""
    if not of_memory(request.facts):
        return False
    problem = problem_of(changed.get("content"), changed.get("key"), tuple(changed.get("tags") or ()))
    if problem is not None and "content" in changed:
        raise InvalidInput(f"request {request.request_id}: {problem}")
    return True


async def arguments_of(store: Store, request: PendingRequest) -> dict[str, Json]:
    """The arguments of the call that a request is about, by the journal of its run. InvalidInput when they are gone."""
    found: dict[str, Json] | None = None
    for frame in await store.recent(request.run_id):
        for entry in frame.entries:
            if isinstance(entry, Intent) and entry.facts.get("request_id") == request.request_id:
                found = entry.content.get("arguments") if isinstance(entry.content, dict) else None
    if found is None:
        raise InvalidInput(f"request {request.request_id}: its arguments are gone and cannot be changed: say yes or no")
    return found
