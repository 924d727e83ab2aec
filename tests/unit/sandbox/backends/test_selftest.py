"""What the self-test makes of attempts that cannot be made, and when it makes them again. The backend is a double."""

from __future__ import annotations

import asyncio

import pytest

from retinue.runs.errors import TransientError
from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends import selftest
from retinue.sandbox.backends.port import Place, Surroundings
from retinue.sandbox.backends.selftest import Attempts, try_out
from retinue.sandbox.profiles import STRICT, Profile

pytestmark = pytest.mark.promise("E4")


class Answers:
    """A backend that answers every attempt in one way."""

    def __init__(self, answer: ExecResult | Exception) -> None:
        self.answer = answer
        self.asked = 0

    async def run(self, place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_sandbox_that_cannot_be_made_is_absent_whole_and_tried_again() -> None:
    broken = Answers(TransientError("bwrap: Can't mount proc on /newroot/proc: Operation not permitted"))
    attempts = Attempts("broken", "1", broken.run, None)
    report = await try_out(attempts, {})
    assert {finding.assurance for finding in report.findings.values()} == {"absent"}
    assert set(report.lacking(STRICT)) <= set(report.findings)
    assert "Can't mount proc" in report.findings["files"].why
    assert broken.asked == 1
    await try_out(attempts, {})
    assert broken.asked == 2


async def test_an_attempt_that_says_nothing_counts_as_one_that_worked() -> None:
    silent = Answers(ExecResult(exit_code=1, stderr="python3: not found"))
    report = await try_out(Attempts("silent", "1", silent.run, None), {})
    assert {finding.assurance for finding in report.findings.values()} - {"absent"} == set()
    assert "not tried, the trial said: python3: not found" in report.findings["syscalls"].why


async def test_a_self_test_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(place: Place, profile: Profile, order: Exec, around: Surroundings) -> ExecResult:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(selftest, "SECONDS", 0.05)
    report = await try_out(Attempts("slow", "1", never, None), {})
    assert "was not done after" in report.findings["files"].why
