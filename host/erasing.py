"""Erasing a tenant: its key is destroyed, and with it all that is sealed; what stands in plain on this machine goes.

Owns the order, which may be cut off at any point and taken up again: told first, then the key, then what is in plain,
then told what came of it. Knows what it does not reach, and says so. Knows no terminal.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from retinue.host import clock
from retinue.host.sandboxes import bases_of, living_of, open_snapshots, this_node
from retinue.host.settings import Settings
from retinue.runs.contracts import Json, RunRequest
from retinue.runs.errors import StoreBusy, UnknownName
from retinue.runs.journal import Record
from retinue.runs.ownership import NewRun
from retinue.store.store import Store
from retinue.traces.file import NAME, FileSettings
from retinue.traces.projection import remove_tables

TARGET, TOPIC = "retinue.erasure", "erasure"
"""The target of the runs that tell of an erasure, and the topic of what they tell."""


@dataclass(frozen=True, slots=True)
class Order:
    """Whose content is to be erased, by whom and why."""

    tenant: str
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: whether there was a key, and how much of the rest there was on this machine (`tables`: whether
    the trace tables were removed). `left` says what is not, and what to do about it.
    """

    tenant: str
    key: bool
    snapshot_bytes: int
    workspaces: int
    bases: int
    pins: int
    tables: bool
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant: whether its content is kept or was erased, its runs, and how many of them have not ended."""

    tenant: str
    content: str
    runs: int
    open: int


async def standings(store: Store) -> list[Standing]:
    """All tenants that have runs or a key, or had one, by name."""
    counts = await store.tenants.counts()
    keyed = set(await asyncio.to_thread(store.vault.tenants))
    found = []
    for tenant in sorted(keyed | counts.keys()):
        erased = tenant in keyed and await asyncio.to_thread(store.vault.erased, tenant)
        content = "erased" if erased else "kept" if tenant in keyed else "none"
        found.append(Standing(tenant, content, *counts.get(tenant, (0, 0))))
    return found


async def check_erasable(store: Store, tenant: str) -> None:
    """UnknownName for a tenant that never was; InvalidInput while runs of it go on."""
    if tenant not in await store.tenants.counts() and tenant not in await asyncio.to_thread(store.vault.tenants):
        raise UnknownName(f"there is no tenant {tenant!r}: `retinue tenants list` lists them")
    await store.tenants.refuse_open(tenant)


async def erase_tenant(settings: Settings, store: Store, order: Order) -> Erased:
    """Erase all that can be. What was erased before is no error: what is left of it goes.

    UnknownName, InvalidInput as for `check_erasable`; StoreError and TransientError: done again, it goes on.
    """
    await check_erasable(store, order.tenant)
    await store.tenants.tell(_told(settings, order, {"event": "begun"}), of=order.tenant)
    key = await asyncio.to_thread(store.vault.destroy, order.tenant)
    pins = await store.sandbox_records.pins(order.tenant)
    for pin in pins:
        await store.sandbox_records.unpin(pin.tenant_id, pin.name)
    workspaces, unknown = await _sweep(settings, store)
    bases = bases_of(settings)
    gone = await asyncio.to_thread(bases.erase, order.tenant)
    snapshots = open_snapshots(settings, store)
    size = await asyncio.to_thread(snapshots.objects.usage, order.tenant)
    await snapshots.erase(order.tenant)
    tables = await asyncio.to_thread(_remove_tables, settings)
    left = _in_use(unknown, await asyncio.to_thread(bases.kept, order.tenant)) + (
        () if tables is not None else _busy(settings)
    )
    left += await _come_meanwhile(store, order.tenant) + beyond(settings)
    done = Erased(order.tenant, key, size, workspaces, gone, len(pins), bool(tables), left)
    await store.tenants.tell(_told(settings, order, {"event": "erased", **_facts(done)}), of=None)
    return done


def beyond(settings: Settings) -> tuple[str, ...]:
    """What no erasure here reaches, for this project."""
    archive = settings.traces.archive
    elsewhere = (
        "other machines: plain copies and workspaces there go within a minute where a host of the project runs; "
        "elsewhere remove data/sandboxes/work and data/sandboxes/cache, and data/traces",
    )
    return (
        "backups and copies of the store, and snapshots of disks, that were made before: they hold the key. Destroy "
        "them, or erase again where one is restored",
        "what has left: to models, tools, servers and alerts, by spans that were exported, by `sandbox export` and "
        "`sandbox restore`, and the inputs and outputs of batches, which are files of yours",
        "the record that there were runs: ids, names of agents, tools and principals, file names that snapshots left "
        "out, times, amounts, reasons of stops; and bytes that nobody can open any more",
        "memory of processes that run: they let go of the key within half a minute",
        *([f"the archive of trace tables in {archive}: remove it, it is made again without"] if archive else []),
        *(elsewhere if settings.store is not None else ()),
    )


async def _sweep(settings: Settings, store: Store) -> tuple[int, int]:
    """Remove the workspaces of this node that are done with, as all of the tenant are; how many they were, and how many
    there are that no record tells of: their owner died early."""
    living = living_of(settings)
    here = await asyncio.to_thread(lambda: list(living.all()))
    done, unknown = await store.sandbox_records.done_with(here, this_node())
    return sum([await asyncio.to_thread(living.remove, sandbox_id) for sandbox_id in sorted(done)]), len(unknown)


def _remove_tables(settings: Settings) -> bool | None:
    """Whether there were trace tables; None when a process has them."""
    try:
        return remove_tables(settings.data_folder / "traces", FileSettings(memory=settings.traces.memory_limit))
    except StoreBusy:
        return None


def _busy(settings: Settings) -> tuple[str, ...]:
    return (
        f"the trace tables {settings.data_folder / 'traces' / NAME}, which hold it in the clear: a process has them "
        "open. `retinue down`, end what runs with --local, and give the same command again",
    )


def _in_use(workspaces: int, copies: list[str]) -> tuple[str, ...]:
    if not workspaces and not copies:
        return ()
    return (
        f"{workspaces} workspaces that no record tells of and {len(copies)} plain copies of snapshots, here in "
        "data/sandboxes: they may be of this tenant, and go within ten minutes where a host of the project runs",
    )


async def _come_meanwhile(store: Store, tenant: str) -> tuple[str, ...]:
    counts = await store.tenants.counts()
    open_ = counts.get(tenant, (0, 0))[1]
    if not open_:
        return ()
    return (f"{open_} runs that were accepted meanwhile: cancel them, and give the same command again",)


def _facts(done: Erased) -> dict[str, Json]:
    facts: dict[str, Any] = asdict(done)
    return {name: value for name, value in facts.items() if name not in ("tenant", "left")}


def _told(settings: Settings, order: Order, facts: dict[str, Json]) -> NewRun:
    """A run that is over as soon as it is accepted, of the tenant of the configuration, without content."""
    run_id, now = clock.new_run_id(), clock.now_ns()
    request = RunRequest(
        run_id=run_id,
        trace_id=clock.new_trace_id(),
        span_id=clock.new_span_id(),
        tenant_id=settings.tenant,
        principal_id=order.by,
        kind="workflow",
        target=TARGET,
        target_version="1",
        root_run_id=run_id,
        effect_scope=run_id,
    )
    said: dict[str, Json] = {"name": order.tenant, "by": order.by, "why": order.why, **facts}
    return NewRun(request, None, now, past=(Record(at=now, topic=TOPIC, by="runtime", facts=said),))
