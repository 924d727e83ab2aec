"""Rollouts as people move them: which version a name means, what a change is, and the run that tells of it.

Knows the project and the store; the verbs only show.
"""

from __future__ import annotations

from dataclasses import dataclass

from retinue.host import clock
from retinue.ingress.client import Client
from retinue.ingress.versions import named
from retinue.runs.contracts import RunRequest
from retinue.runs.definitions import AgentSpec
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.journal import Record
from retinue.runs.ownership import NewRun
from retinue.runs.rollouts import DECLARED_SHARE, WHOLE, Kind, Rollout, Stage, Table, Versioned
from retinue.store.store import Store

TARGET = "retinue.rollout"
"""The target of the run that tells of a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is wanted: a stage, a share for a canary (hundredths of a percent), by whom and why."""

    stage: Stage
    share: int | None
    by: str
    reason: str


class RolloutDesk:
    """Over one client of a project; errors are RetinueError."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client = client
        self._store = store

    async def listed(self) -> list[Rollout]:
        """Where every version stands that is not simply out for all, and those that were ever moved."""
        table = Table(await self._store.rollouts.listed())
        project = self._client.project
        standing = [table.of("capability", one) for one in project.capabilities]
        for name in project.registry.names():
            versions = project.registry.versions(project.registry.get(name))
            standing += [table.of("agent", one) for one in versions if isinstance(one, AgentSpec)]
        shown = [one for one in standing if one.stage != "full" or one.at]
        known = {(one.kind, one.name, one.version) for one in shown}
        return [*shown, *(row for key, row in table.rows.items() if key not in known)]

    async def move(self, name: str, wanted: Change) -> Rollout:
        """Move `NAME` or `NAME@VERSION` and put on record who did it and why. UnknownName, InvalidInput."""
        kind, what, version = self._find(name)
        if wanted.share is not None and wanted.stage != "canary":
            raise InvalidInput(f"--share is for canary, and the stage is {wanted.stage}: leave it out")
        now = clock.now_ns()
        rollout = Rollout(
            kind=kind,
            name=what.name,
            version=version,
            stage=wanted.stage,
            share=wanted.share if wanted.share is not None else DECLARED_SHARE if wanted.stage == "canary" else WHOLE,
            at=now,
            by=wanted.by,
            reason=wanted.reason,
        )
        await self._store.rollouts.move(rollout, self._told(rollout))
        return rollout

    def _find(self, name: str) -> tuple[Kind, Versioned, str]:
        """What is meant, and the version to write down: none where versions are digests, which change with the code."""
        plain, _, version = name.partition("@")
        project = self._client.project
        for capability in project.capabilities:
            if capability.name == plain and version in ("", capability.version):
                return "capability", capability, capability.version
            if capability.name == plain:
                raise UnknownName(f"capability {plain!r} has version {capability.version}, not {version!r}")
        definition = project.registry.get(plain)
        if not isinstance(definition, AgentSpec):
            raise InvalidInput(f"{plain!r} is a workflow: agents and capabilities have stages")
        versions = project.registry.versions(definition)
        if version:
            definition = named(project.registry, definition, version)
        elif len(versions) > 1:
            there = ", ".join(f"{plain}@{one.version}" for one in versions)
            raise InvalidInput(f"agent {plain!r} has several versions: name one of {there}")
        return "agent", definition, "" if definition.version.startswith("~") else definition.version

    def _told(self, rollout: Rollout) -> NewRun:
        """A run that is over as soon as it is accepted: its journal tells of the change."""
        run_id = clock.new_run_id()
        settings = self._client.settings
        request = RunRequest(
            run_id=run_id,
            trace_id=clock.new_trace_id(),
            span_id=clock.new_span_id(),
            tenant_id=settings.tenant,
            principal_id=rollout.by,
            kind="workflow",
            target=TARGET,
            target_version="1",
            root_run_id=run_id,
            effect_scope=run_id,
        )
        facts = rollout.model_dump(mode="json")
        record = Record(at=rollout.at, topic="rollout", by="runtime", facts=facts)
        return NewRun(request, facts, rollout.at, past=(record,))
