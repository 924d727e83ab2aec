"""Chaos: `python -m tests.chaos.run --seconds 600 --seed 7 [--faults kill-run,full-disk] [--store postgres]`.

Exit code 1 on findings.
Owns the order of things: start, disturb, let settle, measure, stop, judge, tell.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import recovery, tables
from tests.chaos.checker import Finding, check
from tests.chaos.faults import ALONE, FAULTS
from tests.chaos.history import History, groups_by, read_effects, runs_by
from tests.chaos.load import Load
from tests.chaos.look import Look
from tests.chaos.nodes import three_nodes
from tests.chaos.scene import Scene
from tests.chaos.stores import KINDS, Kind
from tests.chaos.summary import Round, Told, tell
from tests.chaos.waves import Waves
from tests.chaos.world import World, world

from retinue import connect
from retinue.host import clock

_SETTLE = 150.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, which seed, which faults, whether the recovery of a thousand runs is measured, and on which store."""

    seconds: float
    seed: int
    faults: Sequence[str]
    measure: bool = True
    store: Kind = "sqlite"


async def chaos(plan: Plan, folder: Path) -> tuple[History, Told]:
    """Do it all in an empty folder. Raises what keeps it from beginning."""
    print(f"chaos on {plan.store}, seed {plan.seed}, {plan.seconds:.0f} s: {', '.join(plan.faults)}", flush=True)
    chance = random.Random(plan.seed)
    with world(folder, plan.store) as place, three_nodes() as nodes:
        waves = Waves(place, random.Random(chance.random()))
        waves.address = nodes.address
        scene = Scene(place, nodes, waves, Look(place.store), random.Random(chance.random()))
        await scene.up()
        async with connect(settings=place.settings, start=False) as client:
            load = Load(client, random.Random(chance.random()))
            rounds = await _under_fire(plan, scene, load)
            await _settled(scene, load)
            measured = await recovery.measure(scene, client, load.accepted) if plan.measure else None
            if plan.measure and measured is None:
                scene.said.append(f"recovery: {recovery.RUNS} runs were not taken up again: {scene.how()}")
        code, _, err = await waves.call("down")
        if code != 0:
            scene.said.append(f"`retinue down` ended with {code}: {err}")
        history = await _history(place, waves, load)
        said = [*scene.said, *waves.faults, *load.doubles, *recovery.late(measured)]
        findings = [Finding("harness", "", text) for text in said] + check(history)
        if findings:
            place.store.keep(folder)
            for kept in filter(
                Path.is_dir, (place.settings.data_folder / name for name in ("keys", "blobs", "traces"))
            ):
                shutil.copytree(kept, folder / "evidence" / kept.name, dirs_exist_ok=True)
    return history, Told(rounds, findings, measured, waves.starts, load.refused)


async def _under_fire(plan: Plan, scene: Scene, load: Load) -> list[Round]:
    """Load and batches go on while faults come, one or two at a time; each time all must be well again."""
    stopping = asyncio.Event()
    scene.waves.go_on(scene.nodes.address)
    users = [asyncio.create_task(load.run(stopping)), asyncio.create_task(scene.waves.run(stopping))]
    begun, rounds = time.monotonic(), []
    try:
        if await scene.well_again() is None:
            raise RuntimeError(f"the runtime never came up: {scene.how()}")
        for names in _drawn(plan.faults, scene.chance):
            await asyncio.sleep(scene.chance.uniform(0.2, 3))
            if time.monotonic() - begun > plan.seconds:
                break
            rounds.append(await _round(scene, names, begun))
            for user in users:
                if user.done():
                    user.result()
        stopping.set()
        await _batches_end(scene, load, users)
    finally:
        stopping.set()
        scene.waves.kill()
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
    return rounds


async def _batches_end(scene: Scene, load: Load, users: list[asyncio.Task[None]]) -> None:
    """The last batch is answered and comes to its end."""
    end = time.monotonic() + _SETTLE
    while not all(user.done() for user in users):
        if time.monotonic() > end:
            scene.said.append(f"the batch did not end within {_SETTLE:.0f} s: {scene.look.unfinished()}")
            return
        await load.answer()
        await asyncio.sleep(0.5)
    for user in users:
        user.result()


def _drawn(faults: Sequence[str], chance: random.Random) -> Iterator[list[str]]:
    """First every fault once, in any order; then one or two at a time, for ever."""
    yield from ([name] for name in chance.sample(list(faults), len(faults)))
    while True:
        names = chance.sample(list(faults), min(len(faults), chance.choice([1, 1, 2])))
        yield names[:1] if ALONE & set(names) else names


async def _round(scene: Scene, names: list[str], begun: float) -> Round:
    at = time.monotonic() - begun
    faults = FAULTS[scene.world.store.kind]
    did = await asyncio.gather(*(faults[name](scene) for name in names), return_exceptions=True)
    for name, what in zip(names, did, strict=True):
        if isinstance(what, BaseException):
            raise RuntimeError(f"{name} could not be done") from what
    seconds = await scene.well_again()
    if seconds is None:
        scene.said.append(f"after {' and '.join(names)} at {at:.1f} s it was never well again: {scene.how()}")
        scene.lost.clear()
    one = Round(at, tuple(names), tuple(map(str, did)), seconds)
    print(one, flush=True)
    return one


async def _settled(scene: Scene, load: Load) -> None:
    """Nobody disturbs any more: everything that can go on goes on, until only people and events are waited for."""
    await load.finish()
    end = time.monotonic() + _SETTLE
    while time.monotonic() < end:
        await load.answer()
        left = [row for row in scene.look.unfinished() if not _rests(row)]
        if not left:
            return
        await asyncio.sleep(0.5)
    scene.said.append(f"not at rest {_SETTLE:.0f} s after the last fault: {scene.look.unfinished()}")


def _rests(row: tuple[str, str, str | None, int]) -> bool:
    """Whether runs in this state wait for what nobody will bring, as it was meant."""
    target, status, _, _ = row
    return target in ("asker", "listener") and status.startswith("waiting")


async def _history(place: World, waves: Waves, load: Load) -> History:
    kept = await tables.compare(place.settings, place.folder / "again")
    return History(
        runs=runs_by(place.store.ask),
        groups=groups_by(place.store.ask),
        effects=read_effects(place.log),
        waves=tuple(waves.done),
        accepted=tuple(load.accepted),
        canceled=tuple(load.canceled),
        tables=kept,
        now=clock.now_ns(),
    )


def main() -> int:
    """The command line; 0 when the judge found nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--store", choices=KINDS, default="sqlite")
    parser.add_argument("--faults", default="", help="names, separated by commas; default: all that its store can have")
    parser.add_argument("--folder", type=Path, default=None, help="an empty folder to keep; default: a temporary one")
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    there = FAULTS[given.store]
    faults = [name for name in given.faults.split(",") if name] or list(there)
    if unknown := set(faults) - set(there):
        parser.error(f"{given.store} has no fault {', '.join(sorted(unknown))}: it has {', '.join(there)}")
    seed = random.SystemRandom().randrange(2**31) if given.seed is None else given.seed
    plan = Plan(given.seconds, seed, faults, store=given.store)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="retinue-chaos-"))).resolve()
    history, told = asyncio.run(chaos(plan, folder))
    print(tell(history, told))
    if told.findings:
        print(f"seed {plan.seed}; the log, the outputs and the evidence, a copy of the store, are in {folder}")
        return 1
    if given.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
