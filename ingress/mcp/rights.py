"""Who speaks through the MCP way in, and what that may do. Pure: decides, does nothing.

One process serves one principal. An agent is a requester like any other and never the person who decides: what it asked
for it cannot approve, whatever it was allowed besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retinue.ingress.approving import check_approver
from retinue.runs.contracts import PendingRequest, RunRecord
from retinue.runs.errors import InvalidInput, UnknownName


@dataclass(frozen=True, slots=True)
class Rights:
    """The identity of whoever is connected. It sees the runs of its tenant and acts on those it asked for.

    `others`: acts on what others of the tenant asked for too; `approvals`: decides what others asked for; `traces`: may
    ask the trace tables, which hold all tenants. `roles` says who has which, where a rule wants one of an approver.
    """

    principal: str
    tenant: str
    others: bool = False
    approvals: bool = False
    traces: bool = True
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_seen(rights: Rights, record: RunRecord, given: str) -> None:
    """UnknownName for a run of another tenant: as if it were not there."""
    if record.tenant_id != rights.tenant:
        raise unknown_run(given)


def unknown_run(given: str) -> UnknownName:
    """What is said of a run that is not there, or not for these eyes."""
    return UnknownName(f"there is no run {given!r}: `list_runs` shows the newest; give an id, or its end, whole")


def check_acts(rights: Rights, record: RunRecord, principal: str, what: str) -> None:
    """InvalidInput when the run was asked for by another principal and these rights are for their own."""
    if principal != rights.principal and not rights.others:
        raise InvalidInput(
            f"run {record.run_id} was asked for by {principal!r}, and {rights.principal!r} may {what} only what it "
            "asked for itself: start `retinue mcp` with --others, or use the command line"
        )


def is_decision(request: PendingRequest) -> bool:
    """Whether the answer lets something happen, or says that it has: an approval, or a write in doubt."""
    return request.kind == "approval" or "doubt" in request.facts


def refusal(rights: Rights, request: PendingRequest) -> str | None:
    """Why these rights cannot resolve a request; None when they can."""
    requester = request.facts.get("requester")
    own = requester == rights.principal
    if is_decision(request):
        if not rights.approvals:
            return "a person decides this: `retinue inbox` shows it (`retinue mcp --approvals` lets this principal)"
        if own:
            return f"{rights.principal!r} asked for it and cannot decide it: another principal has to"
        return _without_role(rights, request)
    if own or rights.others:
        return None
    return f"it was asked for {requester!r}: `retinue answer {request.request_id}` (or `retinue mcp --others`)"


def _without_role(rights: Rights, request: PendingRequest) -> str | None:
    try:
        check_approver(request, rights.principal, rights.roles)
    except InvalidInput as error:
        return str(error)
    return None


def check_resolves(rights: Rights, request: PendingRequest) -> None:
    """InvalidInput that tells why, when these rights cannot resolve a request."""
    why = refusal(rights, request)
    if why is not None:
        raise InvalidInput(f"request {request.request_id} of run {request.run_id} is left as it is: {why}")
