"""Which backend runs a profile, and how a refusal names what is missing and what mends it. Reports are doubles."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from retinue.runs.errors import ConfigError
from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.backends import remedies
from retinue.sandbox.backends.choosing import Backends, choose
from retinue.sandbox.backends.port import Demand, Finding, Place, Report, Surroundings, demands
from retinue.sandbox.backends.remedies import remedy
from retinue.sandbox.backends.selftest import MET, absent
from retinue.sandbox.profiles import BUILD, SHIPPED, STRICT, UNCONFINED, Limits, Profile

pytestmark = pytest.mark.promise("E4")

NO_SPACES = Finding("absent", "user namespaces are closed", "sysctl kernel.unprivileged_userns_clone=1")


@dataclass
class Reported:
    """A backend that has its report beforehand and runs nothing."""

    name: str
    findings: dict[Demand, Finding] = field(default_factory=dict)
    probed: int = 0

    async def probe(self) -> Report:
        self.probed += 1
        return Report(self.name, "1", self.findings)

    async def exec(self, place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        raise AssertionError("a choice runs nothing")


def whole(name: str, **gaps: Finding) -> Reported:
    every = {demand: MET for profile in SHIPPED.values() for demand in demands(profile)}
    return Reported(name, {**every, **gaps})  # type: ignore[dict-item]


PLAIN = Reported("unconfined", {"time": MET, "cleanup": MET})


async def test_auto_takes_the_first_that_is_fit() -> None:
    first, second = whole("first"), whole("second")
    chosen, report = await choose([first, second, PLAIN], "auto", STRICT)
    assert (chosen, report.backend, second.probed) == (first, "first", 0)
    first.findings["files"] = NO_SPACES
    assert (await choose([first, second, PLAIN], "auto", STRICT))[0] is second


async def test_a_gap_in_a_limit_is_taken_and_one_in_isolation_is_not() -> None:
    gap = Finding("limited", "there is a way around", "mend it")
    loose = whole("loose", memory=gap, disk=gap, process_count=gap)
    assert (await choose([loose, PLAIN], "auto", STRICT))[0] is loose
    for demand in ("files", "processes", "network", "syscalls", "privileges", "cleanup"):
        with pytest.raises(SandboxRefused, match=rf"{demand}: there is a way around; remedy: mend it"):
            await choose([whole("loose", **{demand: gap}), PLAIN], "auto", STRICT)


async def test_a_refusal_names_each_backend_demand_cause_and_remedy() -> None:
    nothing = Reported("first", dict(absent("first", "1", NO_SPACES.why, NO_SPACES.remedy).findings))
    second = whole("second", memory=Finding("absent", "no control groups", "run it as root"))
    with pytest.raises(SandboxRefused) as refused:
        await choose([nothing, second, PLAIN], "auto", STRICT)
    assert refused.value.code == "sandbox_backend"
    first_line, about_first, about_second = str(refused.value).splitlines()
    assert first_line == "profile strict cannot be enforced on this node, so nothing was run."
    assert about_first == (
        "first: everything: user namespaces are closed; remedy: sysctl kernel.unprivileged_userns_clone=1"
    )
    assert about_second == "second: memory: no control groups; remedy: run it as root"


async def test_nothing_falls_back_to_unconfined() -> None:
    with pytest.raises(SandboxRefused, match="no way to do it"):
        await choose([Reported("first"), PLAIN], "auto", STRICT)
    with pytest.raises(SandboxRefused, match="no way to do it"):
        await choose([Reported("first"), whole("second"), PLAIN], "first", STRICT)


async def test_an_unconfined_profile_is_run_by_the_unconfined_backend_whatever_is_named() -> None:
    for name in ("auto", "first", "unconfined"):
        assert (await choose([whole("first"), PLAIN], name, UNCONFINED))[0] is PLAIN


async def test_the_unconfined_backend_is_not_named_for_a_confined_profile() -> None:
    with pytest.raises(SandboxRefused, match="profile strict is confined, and `sandbox: backend: unconfined`"):
        await choose([whole("first"), PLAIN], "unconfined", STRICT)


async def test_a_backend_that_is_not_known_is_told() -> None:
    with pytest.raises(ConfigError, match=r"`sandbox: backend: dcoker` is not known: write auto, first, unconfined"):
        await choose([whole("first"), PLAIN], "dcoker", STRICT)


async def test_a_limit_that_is_not_set_is_not_asked_for() -> None:
    none = STRICT.model_copy(update={"limits": Limits(memory=None, disk=None, files=None)})
    lax = whole("lax")
    del lax.findings["memory"], lax.findings["disk"]
    assert (await choose([lax, PLAIN], "auto", none))[0] is lax
    with pytest.raises(SandboxRefused, match="memory, disk: this backend has no way"):
        await choose([lax, PLAIN], "auto", STRICT)


async def test_hosts_are_asked_for_where_a_profile_lists_them() -> None:
    proxyless = whole("first", hosts=Finding("absent", "no proxy can stand in it", "choose another"))
    assert (await choose([proxyless, PLAIN], "auto", STRICT))[0] is proxyless
    with pytest.raises(SandboxRefused, match=r"profile build .*\nfirst: hosts: no proxy can stand"):
        await choose([proxyless, PLAIN], "auto", BUILD)


async def test_the_backends_of_a_process_are_these() -> None:
    backends = Backends(uid=None)
    try:
        assert [backend.name for backend in backends.all] == ["bubblewrap", "landlock", "unconfined"]
        assert (await backends.choose("auto", UNCONFINED))[0].name == "unconfined"
    finally:
        backends.close()


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor profile"),
    ],
)
def test_the_remedy_is_the_setting_that_closes_it(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, told: str
) -> None:
    monkeypatch.setattr(remedies, "_setting", lambda name: value if name == setting else "")
    assert told in remedy("bwrap: No permissions to create new namespace")


def test_a_container_that_hides_proc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "_setting", lambda name: "")
    assert "unmask" in remedy("bwrap: Can't mount proc on /newroot/proc: Operation not permitted")
    assert "bwrap --unshare-user" in remedy("something else")


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/", "/etc", "/proc/1"])
async def test_a_path_that_cannot_be_shown_is_refused_before_anything_runs(path: str) -> None:
    profile = STRICT.model_copy(update={"reads": (path,)})
    with pytest.raises(SandboxRefused, match=f"reads: {path}") as refused:
        await choose([whole("first"), PLAIN], "auto", profile)
    assert refused.value.code == "sandbox_reads"
