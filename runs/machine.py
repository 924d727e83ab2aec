"""The transition table of a run, pure: statuses, the moves between them, and what each stop reason means.

A run is born `queued`. A host that leases it moves it to `in_progress`; only there does its journal grow.
From there it either ends (`completed`, `failed`, `canceled`) or parks in one of three waiting statuses,
holding no coroutine and no actor. Anything that arrives for a parked run makes it `queued` again: recovery
after a crash, waking after a wait and retrying after a failure are the same move, so there is no second path
to get wrong.

                    lease                    finish
      queued ───────────────▶ in_progress ───────────────▶ completed | failed | canceled
        ▲ ▲ ▲                     │  │                                    │
        │ │ └── owner died, held ─┘  │ park                               │
        │ └───────── news ◀── waiting | waiting_for_input | waiting_for_approval ── cancel ──▶ canceled
        └──────────────────────────────────── retry ◀────────────────────┘
"""

from __future__ import annotations

from retinue.runs.contracts import Status, StopReason
from retinue.runs.errors import RetinueError

WAITING = frozenset({Status.waiting, Status.waiting_for_input, Status.waiting_for_approval})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.queued: frozenset({Status.in_progress, Status.canceled}),
    Status.in_progress: frozenset({Status.queued, Status.completed, Status.failed, Status.canceled}) | WAITING,
    Status.waiting: frozenset({Status.queued, Status.canceled}),
    Status.waiting_for_input: frozenset({Status.queued, Status.canceled}),
    Status.waiting_for_approval: frozenset({Status.queued, Status.canceled}),
    Status.completed: frozenset(),
    Status.failed: frozenset({Status.queued}),
    Status.canceled: frozenset(),
}

STATUS_OF: dict[StopReason, Status] = {
    StopReason.success: Status.completed,
    StopReason.handoff: Status.completed,
    StopReason.approval_required: Status.waiting_for_approval,
    StopReason.input_required: Status.waiting_for_input,
    StopReason.timer: Status.waiting,
    StopReason.child: Status.waiting,
    StopReason.event: Status.waiting,
    StopReason.retry_later: Status.waiting,
    StopReason.blocked: Status.failed,
    StopReason.budget_exhausted: Status.failed,
    StopReason.invalid_decision: Status.failed,
    StopReason.policy_denied: Status.failed,
    StopReason.tool_failure: Status.failed,
    StopReason.model_failure: Status.failed,
    StopReason.output_rejected: Status.failed,
    StopReason.side_effect_unknown: Status.failed,
    StopReason.replay_mismatch: Status.failed,
    StopReason.deadline_exceeded: Status.failed,
    StopReason.internal_error: Status.failed,
    StopReason.canceled: Status.canceled,
}
"""The status a reason leads to. `side_effect_unknown` waits for a person instead when the policy says so."""

REMEDY: dict[StopReason, str] = {
    StopReason.blocked: "the request pre-check refused it; change the request or the policy, then submit again",
    StopReason.budget_exhausted: "`retinue retry RUN --budget ...` goes on with more",
    StopReason.invalid_decision: "retry, or use a model that follows the decision protocol",
    StopReason.policy_denied: "change the request or the policy, then submit again",
    StopReason.tool_failure: "repair the tool or what it was given, then retry",
    StopReason.model_failure: "check the model endpoint, then retry",
    StopReason.output_rejected: "retry, or loosen the output schema",
    StopReason.side_effect_unknown: "find out whether the effect happened before anything is repeated",
    StopReason.replay_mismatch: "bring back the version it began with; or `retinue retry RUN --migrate`; or fork it",
    StopReason.deadline_exceeded: "`retinue retry RUN` starts its clock again",
    StopReason.internal_error: "read the error; a retry helps when the cause was outside",
}
"""What helps after a failure, shown with every failed run."""

_OF_CODE = {
    "manifest": "mend the manifest or the name it is opened by (`retinue sandbox check NAME` tells), then retry",
    "no_snapshot": "submit it again with a snapshot that is kept: `retinue sandbox list --all` and `--pins` name them",
    "no_sandboxes": "put manifests into the folder that `sandbox.folder` names, then retry",
    "sandbox_backend": "`retinue doctor` says what this machine lacks for the profile; mend that, then retry",
    "sandbox_lost": "bring back what is named there and retry; or fork the run from before, or submit it again",
    "lost_exec": "find out what the program did outside its sandbox, then retry",
}


def remedy_of(reason: StopReason, code: str | None) -> str | None:
    """What helps a run that ended for this reason, with an error of this code. None where nothing is needed."""
    of_code = _OF_CODE.get(code or "") if reason is StopReason.tool_failure else None
    return of_code or REMEDY.get(reason)


class IllegalTransition(RetinueError):
    """A move that the table does not have; names the run and both statuses."""

    def __init__(self, run_id: str, found: Status, wanted: Status) -> None:
        allowed = ", ".join(sorted(TRANSITIONS[found])) or "nothing: it has ended"
        super().__init__(f"run {run_id} is {found} and cannot become {wanted}; from {found}: {allowed}")
        self.found = found
        self.wanted = wanted


def check(run_id: str, found: Status, wanted: Status) -> None:
    """Raise IllegalTransition unless the table allows the move."""
    if wanted not in TRANSITIONS[found]:
        raise IllegalTransition(run_id, found, wanted)


def sources(wanted: Status) -> frozenset[Status]:
    """The statuses from which `wanted` can be reached in one move."""
    return frozenset(source for source, targets in TRANSITIONS.items() if wanted in targets)
