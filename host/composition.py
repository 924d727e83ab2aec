"""The composition root: from plain settings to a store, a gate, models, tools, traces and a host.

The only place where collaborators are made; everything else is given them. Knows no Ray.
"""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from difflib import get_close_matches

from retinue.host import clock
from retinue.host.hosting import Host, HostShape
from retinue.host.model_endpoint import ModelEndpoint
from retinue.host.modules import load_module
from retinue.host.opening import open_store as open_store
from retinue.host.parts import StoredParts
from retinue.host.remotes import LateConnections, load_remotes
from retinue.host.rows import RowReader
from retinue.host.rule_watch import RuleWatch
from retinue.host.sandbox_keeping import SandboxDuty
from retinue.host.sandboxes import open_sandboxes
from retinue.host.sandboxing import manifests_of
from retinue.host.settings import Settings
from retinue.host.streaming import DeltaBuffer
from retinue.inference.catalog import Models, models_from
from retinue.memory.packets import PacketBuilder
from retinue.policy.invariants import Invariants
from retinue.policy.live import LiveGate
from retinue.runs.agent_sandbox import check_sandboxes
from retinue.runs.batch import batch
from retinue.runs.capabilities import SANDBOX, Capability
from retinue.runs.contracts import Budget
from retinue.runs.errors import ConfigError
from retinue.runs.ownership import HostInfo
from retinue.runs.ports import Defaults, RetryPolicy, Services
from retinue.runs.registry import Registry
from retinue.runs.resources import readable_name
from retinue.runs.sandbox_errand import errand
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import NativeTool
from retinue.sessions.sandboxed import sandbox_tools
from retinue.store.liveness import boot_id, current_owner
from retinue.store.objects import resolve, split_url
from retinue.store.places import open_objects
from retinue.store.store import Store
from retinue.traces.archive import ArchiveSettings
from retinue.traces.export import OtlpSettings
from retinue.traces.file import FileSettings
from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces

DEFAULT_BUDGET = Budget(steps=32, hops=64, depth=8, width=1_000_000)
"""What holds where neither a definition nor the configuration sets a limit."""


@dataclass(frozen=True, slots=True)
class Project:
    """A user's project, loaded and checked: what can run in it and under which rules."""

    settings: Settings
    registry: Registry
    gate: LiveGate
    gateway: CapabilityGateway
    models: Models
    capabilities: tuple[Capability, ...]


def load_project(settings: Settings) -> Project:
    """Import the modules, parse the policy, list the tools. ConfigError names what to mend."""
    connections = LateConnections()
    remotes = load_remotes(settings, connections)
    registry = Registry([load_module(settings.folder, name) for name in settings.modules], [batch, errand], remotes)
    _check_pools(settings, registry)
    check_sandboxes(registry.sandboxes, manifests_of(settings).info)
    gate = gate_of(settings)
    native = [tool for tool in registry.tools.values() if isinstance(tool, NativeTool)]
    boxed = sandbox_tools(agents=bool(registry.sandboxes))
    catalog = Catalog([*native, *boxed, *(remotes.tools.values() if remotes is not None else ())])
    gateway = CapabilityGateway(catalog, gate, clock=clock.now_ns, connections=connections)
    models = models_from(root=settings.folder, prices=settings.models.prices, keys=settings.models.keys)
    shown = tuple(one for one in catalog.capabilities if registry.sandboxes or one.source != SANDBOX)
    return Project(settings, registry, gate, gateway, models, shown)


def gate_of(settings: Settings) -> LiveGate:
    """The gate over the project's rules, as they stand now and as it may find them later. ConfigError."""
    invariants = Invariants(kill_switch=settings.kill_switch or False)
    return LiveGate(lambda: settings.policy_folder, invariants, settings.roles)


def _check_pools(settings: Settings, registry: Registry) -> None:
    """A setting for a pool that nothing runs in would be read by nobody."""
    declared = sorted({name for pool, needs in registry.pools.items() for name in (pool, readable_name(needs))})
    known = ["runs", "workers", "*", *declared]
    for name in settings.actors.pools:
        if name not in known:
            near = get_close_matches(name, known, n=2) or known
            raise ConfigError(
                f"retinue.yaml: actors.pools: nothing runs in a pool {name!r}: did you mean {' or '.join(near)}? "
                "`retinue doctor` lists the pools; what agents, workflows and tools need makes them"
            )


def open_traces(settings: Settings, store: Store) -> Traces:
    """The trace tables of the data folder, not opened yet."""
    secrets = [os.environ[name] for name in settings.redact if os.environ.get(name)]
    otlp = OtlpSettings(settings.otlp) if settings.otlp else None
    file = FileSettings(memory=settings.traces.memory_limit)
    return Traces(settings.data_folder / "traces", store, Redactor(secrets), otlp, file, archive_of(settings))


def archive_of(settings: Settings) -> ArchiveSettings | None:
    """Where the trace tables are kept as Parquet, if anywhere. ConfigError when its client is not installed."""
    if settings.traces.archive is None:
        return None
    place, prefix = split_url(resolve(settings.traces.archive, "traces.archive"))
    return ArchiveSettings(open_objects(place), prefix, settings.traces.archive_every)


def services_of(project: Project, store: Store, deltas: DeltaBuffer) -> Services:
    """The collaborators of the executions in one host."""
    settings = project.settings
    budget = settings.budget.within(DEFAULT_BUDGET)
    if settings.max_tool_hops is not None:
        budget = budget.model_copy(update={"hops": settings.max_tool_hops})
    return Services(
        journal=store,
        models=project.models,
        gateway=project.gateway,
        gate=project.gate,
        contexts=PacketBuilder(),
        registry=project.registry,
        sources=RowReader(),
        breakers=store.breakers,
        rollouts=store.rollouts,
        sandboxes=open_sandboxes(settings, store),
        memories=store.memories,
        now_ns=clock.now_ns,
        deltas=deltas.add,
        random=random.Random(),
        retry=RetryPolicy(settings.retry.attempts, settings.retry.base, settings.retry.cap),
        defaults=Defaults(
            model=settings.default_model,
            budget=budget,
            model_timeout=settings.model_timeout,
            context_tokens=settings.context_tokens,
            cancel_grace=settings.actors.cancel_grace,
            approval_lasts=settings.policy.approval_lasts,
            strict=settings.durability == "strict",
            precheck=settings.policy.precheck_required,
            follow_ups=settings.enable_background_updates,
            patience=settings.requests,
            sessions=settings.capability_sessions,
        ),
        endpoint=ModelEndpoint(),
        parts=StoredParts(store),
    )


def make_host(
    project: Project,
    store: Store,
    shape: HostShape,
    kind: str,
    actor_id: str | None = None,
    host_id: str | None = None,
) -> Host:
    """A host in this process, not serving yet."""
    owner = current_owner()
    info = HostInfo(
        host_id=host_id or clock.new_run_id(),
        kind=kind,
        pid=owner.pid,
        pid_started=owner.started,
        boot_id=boot_id(),
        node=socket.gethostname(),
        actor_id=actor_id,
    )
    deltas = DeltaBuffer(store)
    services = services_of(project, store, deltas)
    duties = (
        deltas.flush_for_ever,
        RuleWatch(project.gate, project.settings.policy.reload).watch_for_ever,
        SandboxDuty(project.settings, store, services.sandboxes).tend_for_ever,
    )
    return Host(info, shape, store, services, duties=duties)
