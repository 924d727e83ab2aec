"""One life of a process that works on a scenario: from the submission to the end, or to the kill.

The clock is moved when all runs only wait for time, and goes on from there in the next life; the host's polls are
quick. What became of everything is written down at the end. Knows no verdict.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.crash.outside import OUTSIDE
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.watching import Kill, Watch, open_watched
from tests.doubles import desk
from tests.doubles.sandboxes import Nodes

from retinue.host import clock, composition, hosting, streaming
from retinue.inference.scripted import ScriptedModel
from retinue.ingress import connecting
from retinue.ingress.client import Client
from retinue.ingress.connecting import connect
from retinue.runs.contracts import RunRecord
from retinue.runs.control import RunQuery
from retinue.runs.journal import Accepted
from retinue.runs.messages import ModelReply, ModelRequest, OnDelta
from retinue.sessions.catalog import Catalog
from retinue.store.postgres import hints

PLAIN_TIME = clock.now_ns
TICK = 0.002
SECOND = 1_000_000_000
QUICK = (
    (hosting, "_TEND", 0.02),
    (hosting, "_SWEEP", 0.01),
    (hosting, "_POLL", 0.002),
    (streaming, "_EVERY", 0.01),
    (hints, "_POLL", 0.01),
)
BUSY = ("queued", "in_progress")


@dataclass(frozen=True, slots=True)
class Life:
    """What a process is to live through: which scenario in which folder, the how-many-th life, and where it ends.

    `store` names a PostgreSQL database; without one the store is in the folder.
    """

    scenario: str
    folder: str
    number: int
    kill: Kill | None = None
    store: str | None = None


class Clock:
    """Unix ns, ahead of the real time by what was skipped; what was skipped outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ahead = int(file.read_text()) if file.exists() else 0

    def __call__(self) -> int:
        return PLAIN_TIME() + self._ahead

    def skip_to(self, moment: int) -> None:
        """Let time pass until then."""
        self._ahead += max(moment - self(), 0) + 1
        self._file.write_text(str(self._ahead))


def live(life: Life) -> None:
    """Live; what was reached and what became of everything is in `life-N.json` of the folder."""
    folder, scenario = Path(life.folder), SCENARIOS[life.scenario]
    watch, now = Watch(life.kill), Clock(folder / "clock")
    OUTSIDE.enter(folder, life.number)
    settings = scenario.prepare(folder, life.store)
    composition.Catalog = lambda tools: Catalog([*tools, *desk.TOOLS])  # type: ignore[assignment, misc]
    plain = composition.services_of
    boxes = Nodes(folder / "nodes", now=now).node(f"n{life.number % 2}")
    composition.services_of = lambda *given: replace(plain(*given), sandboxes=boxes)  # type: ignore[assignment]
    assert hasattr(connecting, "open_store"), "the store is opened elsewhere now: watch it there"
    connecting.open_store = lambda settings: open_watched(settings, watch)  # type: ignore[assignment, return-value]
    hasten(now)

    async def work() -> dict[str, Any]:
        async with connect(settings=settings, local=True) as client:
            OUTSIDE.client = client
            await drive(client, scenario, now)
            return {"runs": await tell(client), "open": len(await client.inbox())}

    told = asyncio.run(work())
    reached = [[point, moment, times] for (point, moment), times in watch.reached.items()]
    said = told | {"reached": reached, "strays": sorted(watch.strays), "pid": os.getpid()}
    (folder / f"life-{life.number}.json").write_text(json.dumps(said))


def hasten(now: Clock) -> None:
    """Take the time from this clock everywhere, poll quickly, and log what models are asked."""
    for module in [module for name, module in sys.modules.items() if name.startswith("retinue.")]:
        if getattr(module, "now_ns", None) is PLAIN_TIME:
            module.now_ns = now  # type: ignore[attr-defined]
    for module, name, value in QUICK:
        assert hasattr(module, name), f"{module.__name__}.{name} is gone: say how this host is to be quick"
        setattr(module, name, value)
    ScriptedModel.complete = logged(ScriptedModel.complete)  # type: ignore[method-assign]


def logged(complete: Callable[..., Any]) -> Callable[..., Any]:
    """The model's calls in the outside log, with what they cost, under the span of their step."""

    async def ask(model: ScriptedModel, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        reply: ModelReply = await complete(model, request, on_delta)
        span = (request.traceparent or "--").split("-")[2]
        OUTSIDE.say("asked", span, request.agent, str(request.turn), reply.usage.micros)
        return reply

    return ask


async def drive(client: Client, scenario: Scenario, now: Clock) -> None:
    """Submit, then do what a person does and let time pass, until every run has ended."""
    await scenario.submit(client, Path(OUTSIDE.folder))
    seen = -1
    while True:
        if seen == (seen := client._store.version()):
            await asyncio.sleep(TICK)
            continue
        records = await client.runs(RunQuery(limit=1_000))
        open_ones = [record for record in records if not record.status.terminal]
        if not open_ones:
            if not await scenario.finish(client, records):
                return
            continue
        if is_quiet(open_ones, now()) and not await scenario.react(client, open_ones):
            moments = [record.wake_at for record in open_ones if record.wake_at is not None]
            assert moments, f"nothing will wake {[(record.target, record.reason) for record in open_ones]}"
            now.skip_to(min(moments))


def is_quiet(records: list[RunRecord], now: int) -> bool:
    """True when nothing will happen but by somebody's doing or by time."""
    due = (record.wake_at is not None and record.wake_at <= now for record in records)
    return not any(due) and not any(record.status in BUSY and not _kept(record) for record in records)


def _kept(record: RunRecord) -> bool:
    """A queued run that nobody may take."""
    return record.held and record.status == "queued"


async def tell(client: Client) -> list[dict[str, Any]]:
    """Every run with its record and its whole journal, parents first."""
    records = await client.runs(RunQuery(limit=1_000))
    return [await tell_run(client, record) for record in sorted(records, key=lambda record: record.depth)]


async def tell_run(client: Client, record: RunRecord) -> dict[str, Any]:
    """One run."""
    frames = [frame async for frame in client._store.read(record.run_id)]
    accepted = frames[0].entries[0]
    assert isinstance(accepted, Accepted)
    entries = [
        entry.model_dump(mode="json") | {"content": entry.content} for frame in frames for entry in frame.entries
    ]
    places = [frame.position + offset for frame in frames for offset in range(len(frame.entries))]
    request = accepted.request
    return {
        "record": record.model_dump(mode="json"),
        "place": [request.group_key, request.group_index],
        "fork": request.forked_from is not None,
        "scope": request.effect_scope,
        "entries": entries,
        "positions": places,
    }


def order_of(life: Life) -> str:
    """A life as a line for the server."""
    return json.dumps(asdict(life))


def life_of(order: str) -> Life:
    """A life from its line."""
    given = json.loads(order)
    kill = given.pop("kill")
    return Life(**given, kill=Kill(**kill) if kill else None)
