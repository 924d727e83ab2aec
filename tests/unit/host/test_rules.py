"""Rules that change while a host serves: taken by the next decisions; ones that cannot be used are told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.places import Place
from tests.doubles.projects import ALLOW_ALL, project
from tests.doubles.shapes import new_run, opened
from tests.unit.host import desk

from retinue.host import clock
from retinue.host.alerting import AlertDesk
from retinue.host.composition import Project, load_project, make_host
from retinue.host.hosting import HostShape
from retinue.host.rule_watch import RuleWatch
from retinue.host.settings import Settings
from retinue.runs.contracts import Branch
from retinue.runs.errors import ConfigError
from retinue.runs.ownership import NewRun
from retinue.store.sqlite import SqliteStore

_BOUND = 20.0
NO_STAMPS = ALLOW_ALL + '\n@id("no") @reason("no stamps") forbid (principal, action, resource == Capability::"stamp");'


async def until(right: Callable[[], bool]) -> None:
    async with asyncio.timeout(_BOUND):
        while True:
            if right():
                return
            await asyncio.sleep(0.01)


async def stamped(loaded: Project, store: SqliteStore) -> Branch:
    """The result of a run that stamps a paper."""
    definition = loaded.registry.get("stamps_once")
    changes = {"kind": "workflow", "target": "stamps_once", "target_version": definition.version}
    accepted = new_run(clock.new_run_id(), "x", **changes)
    await store.submit([NewRun(accepted.request, "x", clock.now_ns())])
    async with asyncio.timeout(_BOUND):
        while True:
            result = await store.result(accepted.request.run_id)
            if result is not None:
                return result
            await asyncio.sleep(0.005)


def rules(settings: Settings, text: str) -> None:
    draft = settings.folder / "draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(settings.folder / "policy/rules.cedar")


@pytest.mark.promise("F2")
async def test_a_host_takes_changed_rules_and_keeps_the_old_ones_when_they_are_bad(tmp_path: Path) -> None:
    desk.done.clear()
    settings = project(tmp_path, modules=["tests.unit.host.desk"], settings={"policy": {"reload": 0.02}})
    loaded = load_project(settings)
    store = SqliteStore(settings.data_folder)
    host = make_host(loaded, store, HostShape(("runs",)), "test")
    serving = asyncio.create_task(host.serve())
    try:
        assert (await stamped(loaded, store)).ok
        first = loaded.gate.digest
        rules(settings, NO_STAMPS)
        await until(lambda: loaded.gate.digest != first)
        refused = await stamped(loaded, store)
        assert not refused.ok and "no stamps" in refused.problem and len(desk.done) == 1
        rules(settings, "permit (")
        await until(lambda: loaded.gate.problem is not None)
        assert not (await stamped(loaded, store)).ok and "rules.cedar:1" in str(loaded.gate.problem)
        rules(settings, ALLOW_ALL)
        await until(lambda: loaded.gate.digest == first)
        assert loaded.gate.problem is None and (await stamped(loaded, store)).ok
    finally:
        host.stop()
        await serving
        await store.close()


async def test_rules_are_not_looked_at_when_reload_is_nought() -> None:
    class Watched:
        def look(self) -> bool:
            raise AssertionError("nobody is to look")

    await asyncio.wait_for(RuleWatch(Watched(), 0).watch_for_ever(), 5)


async def test_a_gate_that_fails_to_look_is_looked_at_again() -> None:
    looks: list[int] = []

    class Failing:
        def look(self) -> bool:
            looks.append(len(looks))
            raise OSError("away")

    watching = asyncio.create_task(RuleWatch(Failing(), 0.001).watch_for_ever())
    await until(lambda: len(looks) > 3)
    watching.cancel()


@pytest.mark.promise("K5")
async def test_rules_that_cannot_be_used_are_an_alert_until_they_can(tmp_path: Path) -> None:
    settings = project(tmp_path)
    async with opened(Place("sqlite", tmp_path / "store", None)) as store:
        watching = AlertDesk(settings, store)

        async def standing() -> list[Any]:
            await watching.round()
            await watching.round()
            return await store.alerts.listed()

        assert await standing() == []
        rules(settings, "permit (")
        [alert] = await standing()
        assert (alert.kind, alert.subject) == ("policy", "rules")
        assert "hosts keep those they have" in alert.message and "rules.cedar:1" in alert.message
        assert await standing() == [alert]
        rules(settings, ALLOW_ALL)
        assert await standing() == []


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"lead": []}, "'lead' needs the names"),
        ({"lead": [""]}, "'lead' needs the names"),
        ({"the lead": ["bob"]}, "cannot be named by a rule"),
    ],
)
def test_roles_that_nobody_could_have_are_refused(tmp_path: Path, roles: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        project(tmp_path, settings={"roles": roles})
