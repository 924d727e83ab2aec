"""Which version of a name a new run gets: the one that was named, or the one that the rollouts give it.

Knows the registry and the rollouts, and no store.
"""

from __future__ import annotations

from retinue.runs.definitions import Definition
from retinue.runs.effects.rolling import pick
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.registry import Registry
from retinue.runs.rollouts import Table, refusal


def version_of(registry: Registry, table: Table, target: str, who: tuple[str, str]) -> Definition:
    """The definition of `name` or `name@version` for (tenant, top-level run).

    UnknownName; InvalidInput when it was stopped, or is in a canary that this run is not in, and no other is out.
    """
    name, _, version = target.partition("@")
    definition = registry.get(name)
    if version:
        definition = named(registry, definition, version)
    else:
        definition = pick(table, registry.versions(definition), who)
        why = refusal(table.of("agent", definition), who)
        if why is not None:
            raise InvalidInput(f"{why}: `retinue rollout list` shows the stages, {name}@{definition.version} names it")
    rollout = table.of("agent", definition)
    if rollout.stage == "stopped":
        raise InvalidInput(
            f"agent {rollout.label} was stopped by {rollout.by}: {rollout.reason}; "
            f"`retinue rollout set {rollout.label} STAGE` lets it out again"
        )
    return definition


def named(registry: Registry, definition: Definition, version: str) -> Definition:
    """One version of a definition by name. UnknownName lists them."""
    for one in registry.versions(definition):
        if one.version == version:
            return one
    there = ", ".join(one.version for one in registry.versions(definition))
    raise UnknownName(f"{definition.name!r} has no version {version!r}: there is {there}")
