"""Admission: the first stage of a run. Its version is checked, then the policy, before anything is paid.

Happens once, before the function is called for the first time; what was decided is in the journal.
"""

from __future__ import annotations

from retinue.runs.contracts import Json, RunRequest, StopReason
from retinue.runs.definitions import AgentSpec, Definition, Workflow
from retinue.runs.effects import gates, rolling
from retinue.runs.effects.run import Run
from retinue.runs.errors import ReplayMismatch, RunError
from retinue.runs.journal import Record
from retinue.runs.replay import WAYS_ON


def admit(run: Run, definition: Definition) -> None:
    """Accept the request or refuse it: RunError with the reason `blocked`."""
    tools: list[Json] = list(definition.tool_names) if isinstance(definition, AgentSpec) else []
    facts: dict[str, Json] = {"stage": "accept", "target": definition.name, "version": definition.version}
    if isinstance(definition, Workflow) and definition.boundaries:
        facts["boundaries"] = [list(boundary) for boundary in definition.boundaries]
    run.note(Record(at=run.services.now_ns(), topic="stage", by="runtime", facts=facts))
    if not run.services.defaults.precheck:
        return
    asked: dict[str, Json] = {"kind": definition.kind, "tools": tools} | rolling.at_admission(run)
    concern = gates.Concern("request", definition.name, asked, rollout=str(asked.get("rollout", "full")))
    decision = gates.decide(run, concern)
    if decision.outcome != "allow":
        error = RunError(f"the request pre-check refused it: {decision.reason}", run_id=run.request.run_id)
        error.reason = StopReason.blocked
        raise error


def check_version(definition: Definition, request: RunRequest) -> None:
    """An explicit version is a promise: a run that began with another one stops with ReplayMismatch."""
    pinned, found = request.target_version, definition.version
    if pinned != found and not (pinned.startswith("~") and found.startswith("~")):
        raise ReplayMismatch(
            f"run {request.run_id} began with version {pinned} of {definition.name}, the project has {found}: "
            f"{WAYS_ON}",
            run_id=request.run_id,
        )
