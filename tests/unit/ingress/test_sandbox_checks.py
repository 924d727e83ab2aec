"""What `retinue doctor` says of sandboxes: from real attempts, and from reports of machines that hold less."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.host.settings import Settings, load_settings
from retinue.ingress import sandbox_checks
from retinue.ingress.exits import Exit
from retinue.ingress.sandbox_checks import try_sandboxes
from retinue.sandbox.backends.port import Demand, Finding, Report, demands
from retinue.sandbox.backends.selftest import MET, absent
from retinue.sandbox.profiles import BUILD

pytestmark = pytest.mark.promise("E4")

AGENT = 'from retinue import agent\n\ncoder = agent("coder", "Write code.", sandbox="coder")\n'
CLOSED = ("user namespaces are closed", "sysctl kernel.unprivileged_userns_clone=1")


class Reported:
    """A backend of which nothing but the report is asked."""

    def __init__(self, report: Report) -> None:
        self.name = report.backend
        self._report = report

    async def probe(self) -> Report:
        return self._report


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """The reports of a machine, to be filled in."""
    reports: list[Report] = []

    class Backends:
        def __init__(self, uid: int | None) -> None:
            self.all = [Reported(report) for report in reports]

        def close(self) -> None:
            self.all.clear()

    monkeypatch.setattr(sandbox_checks, "Backends", Backends)
    return reports


def report(backend: str, **gaps: Finding) -> Report:
    findings: dict[Demand, Finding] = {**dict.fromkeys(demands(BUILD), MET), **gaps}  # type: ignore[dict-item]
    return Report(backend, "1.0", findings)


def test_doctor_tells_what_this_machine_holds(retinue: Command, folder: Path) -> None:
    said = retinue("doctor", "--json")
    assert said.code == Exit.done
    rows = {check["name"]: check for check in said.json["checks"]}
    assert rows["sandbox"]["ok"]
    assert rows["sandbox"]["said"].startswith("strict by ")
    assert {"bubblewrap", "landlock"} <= rows.keys()


async def test_each_gap_is_told_once_with_its_cause_and_remedy(machine: list[Report], folder: Path) -> None:
    slow = Finding("limited", "looked at now and then", "make groups")
    machine += [report("first", memory=slow, disk=slow, hosts=Finding("absent", "no proxy", "take the second"))]
    machine += [absent("second", "", *CLOSED)]
    profiles, first, second = await try_sandboxes(Settings(folder=folder))
    assert (profiles.ok, profiles.said) == (True, "strict by first; build by nothing here")
    assert first.said == (
        "1.0; enforced: time, cleanup, files, processes, syscalls, privileges, network, cpu, process_count, file_size; "
        "limited: memory, disk (looked at now and then; remedy: make groups); "
        "absent: hosts (no proxy; remedy: take the second)"
    )
    assert second.said.startswith("absent: files, processes, network, ")
    assert second.said.endswith("(user namespaces are closed; remedy: sysctl kernel.unprivileged_userns_clone=1)")


async def test_profiles_and_the_backend_are_those_of_the_project(machine: list[Report], folder: Path) -> None:
    machine += [report("first"), report("second", memory=Finding("absent", "no groups", "make groups"))]
    (folder / "retinue.yaml").write_text(
        "sandbox:\n  backend: second\n  profiles:\n    lax: {extends: strict, limits: {memory: null}}\n"
    )
    profiles, *others = await try_sandboxes(load_settings(folder))
    assert profiles.said == "strict by nothing here; build by nothing here; lax by second"
    assert [other.name for other in others] == ["first", "second"]


async def test_settings_that_cannot_be_fail(machine: list[Report], folder: Path) -> None:
    settings = Settings(folder=folder, sandbox={"uids": "9000-8000"})  # type: ignore[arg-type]
    (check,) = await try_sandboxes(settings)
    assert (check.ok, "is no range of users" in check.said) == (False, True)


async def test_a_machine_that_can_do_nothing_fails_only_where_an_agent_needs_it(
    machine: list[Report], folder: Path
) -> None:
    machine += [absent("first", "1.0", *CLOSED)]
    profiles, _ = await try_sandboxes(Settings(folder=folder))
    assert (profiles.ok, profiles.said) == (True, "strict by nothing here; build by nothing here")
    (folder / "sandbox").mkdir()
    (folder / "sandbox" / "coder.yaml").write_text("description: Nothing.\nprofile: strict\n")
    (folder / "coders_of_this_test.py").write_text(AGENT)
    profiles, first = await try_sandboxes(Settings(folder=folder, modules=("coders_of_this_test",)))
    assert (profiles.ok, first.ok) == (False, True)
    assert profiles.said.endswith("; coder cannot run: mend what a backend below lacks")
