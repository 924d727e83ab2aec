"""How far a version has been let out: shadow, canary, full, or stopped; and who gets it. Pure.

A stage is declared in code and moved by a record in the store, which wins. Canary is a share of (tenant, top-level
run), chosen by a hash, so the same run always has the same answer. Knows no store and no gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal, Protocol

from pydantic import Field

from retinue.runs.contracts import Frozen

Stage = Literal["shadow", "canary", "full", "stopped"]
Kind = Literal["capability", "agent"]
WHOLE = 10_000
"""The share that is everybody; a share is in hundredths of a percent."""
DECLARED_SHARE = 1_000
"""The share of a canary that only code has declared: a tenth."""


class Rollout(Frozen):
    """Where a version stands, since when (Unix ns), by whom and why; `version` is empty for all of the name."""

    kind: Kind
    name: str
    version: str
    stage: Stage
    share: int = Field(default=WHOLE, ge=0, le=WHOLE)
    at: int = 0
    by: str = ""
    reason: str = ""

    @property
    def label(self) -> str:
        """`name@version`, or the name alone."""
        return f"{self.name}@{self.version}" if self.version else self.name


class Versioned(Protocol):
    """A capability or a definition as a rollout sees it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def stage(self) -> Stage: ...


class Table:
    """The newest record of each (kind, name, version)."""

    def __init__(self, rows: Iterable[Rollout] = ()) -> None:
        self.rows = {(row.kind, row.name, row.version): row for row in rows}

    def of(self, kind: Kind, what: Versioned) -> Rollout:
        """Where a version stands: by its record, by that of its name, or as its code declares."""
        known = self.rows.get((kind, what.name, what.version)) or self.rows.get((kind, what.name, ""))
        if known is not None:
            return known
        share = DECLARED_SHARE if what.stage == "canary" else WHOLE
        return Rollout(kind=kind, name=what.name, version=what.version, stage=what.stage, share=share)


NOTHING_MOVED = Table()


class Rollouts(Protocol):
    """The records, shared by all hosts. `table` is what was last seen; looking costs a query a second at most."""

    @property
    def table(self) -> Table: ...

    async def look(self) -> Table:
        """The records as they were a second ago or later."""
        ...

    async def stop(self, wanted: Rollout) -> bool:
        """Record a stop, durably; False when it was stopped already."""
        ...


class AsDeclared:
    """Rollouts where nothing was ever moved: the stages that code declares, and no stop."""

    table = NOTHING_MOVED

    async def look(self) -> Table:
        """See Rollouts."""
        return self.table

    async def stop(self, wanted: Rollout) -> bool:
        """See Rollouts."""
        return False


def admitted(rollout: Rollout, tenant_id: str, root_run_id: str) -> bool:
    """Whether a top-level run, with all below it, is in the share of a canary."""
    text = "\0".join((rollout.kind, rollout.name, rollout.version, tenant_id, root_run_id))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % WHOLE < rollout.share


def chosen(table: Table, kind: Kind, versions: Sequence[Versioned], who: tuple[str, str]) -> Versioned:
    """Of the versions of a name the one that (tenant, top-level run) gets: a canary that admits it, else the one that
    is out for all, else what there is: the newest shadow before a canary, and a stopped one last.
    """

    def rank(version: Versioned) -> int:
        rollout = table.of(kind, version)
        if rollout.stage == "canary":
            return 0 if admitted(rollout, *who) else 3
        return {"full": 1, "shadow": 2, "stopped": 4}[rollout.stage]

    return min(versions, key=rank)


def refusal(rollout: Rollout, who: tuple[str, str]) -> str | None:
    """Why a version that is the only choice is not given to (tenant, top-level run); None when it is."""
    if rollout.stage != "canary" or admitted(rollout, *who):
        return None
    return (
        f"{rollout.kind} {rollout.label} is in canary for {rollout.share / 100:g} % of the runs, and this one is not "
        "among them; no other version is out"
    )
