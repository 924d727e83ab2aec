"""How answers, money, times, tables and progress read."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from retinue.host.answers import read_answer, row_of
from retinue.ingress.progress import EVERY, Meter, Pace, Progress, line_of
from retinue.ingress.render import columns, duration, ending_text, money
from retinue.ingress.terminal import clean
from retinue.runs.contracts import Branch, ErrorInfo, Status, StopReason, Usage
from retinue.runs.control import JobRow, JobState
from retinue.runs.machine import REMEDY


def state(**counts: int) -> JobState:
    """A job of ten rows."""
    given = {"total": 10, "pending": 0, "ok": 0, "failed": 0, "rejected": 0, "cost_micros": 0, "waiting": 0} | counts
    return JobState(exhausted=False, **given)


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "$0.00"), (1, "$0.000001"), (1_500_000, "$1.50"), (1_234_567_890, "$1,234.56789")],
)
def test_money_shows_every_micro_dollar_and_no_needless_zero(micros: int, text: str) -> None:
    assert money(micros) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (-1, "0.0 s"),
        (42.4, "42 s"),
        (59.6, "1 m 00 s"),
        (185, "3 m 05 s"),
        (7_620, "2 h 07 m"),
        (273_600, "3 d 04 h"),
    ],
)
def test_durations_keep_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_aligned_by_what_is_seen() -> None:
    table = columns(("A", "B"), [("漢字", "x"), ("a\nb", "y"), ("z" * 80, "")]).splitlines()
    assert table[1] == "漢字" + " " * 58 + "x"
    assert table[2].startswith("a b ")
    assert table[3] == "z" * 59 + "…"


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b]0;owned\x07b\r\n\tc\x9b2J") == "a\ufffd]0;owned\ufffdb\n\tc\ufffd2J"


def test_a_structured_answer_is_lifted() -> None:
    answer = read_answer({"answer": "42", "citations": [1], "confidence": 0.9, "why": "so"}, {})
    assert (answer.answer, answer.citations, answer.confidence, answer.details) == ("42", [1], 0.9, {"why": "so"})


def test_checks_come_before_what_an_answer_says_of_itself() -> None:
    assert read_answer({"answer": "42", "confidence": 0.9}, {"confidence": 0.5}).confidence == 0.5
    assert read_answer("42", {"confidence": 1.0}).confidence == 1.0


def test_any_other_output_is_the_answer() -> None:
    assert read_answer({"score": 3}, {}).answer == {"score": 3}
    assert read_answer(None, {}).answer is None


def test_a_failed_row_has_its_error() -> None:
    error = ErrorInfo(reason="tool_failure", code="timeout", message="too slow")
    branch = Branch(
        index=0,
        run_id="r1",
        status=Status.failed,
        reason=StopReason.tool_failure,
        error=error,
        usage=Usage(micros=1500),
    )
    assert row_of(JobRow(seq=9, input_id="q1", branch=branch)) == {
        "id": "q1",
        "answer": None,
        "citations": [],
        "confidence": None,
        "status": "failed",
        "stop_reason": "tool_failure",
        "cost_usd": 0.0015,
        "run_id": "r1",
        "error": {"code": "timeout", "message": "too slow"},
    }


@pytest.mark.parametrize("reason", list(REMEDY))
def test_a_failed_run_says_what_helps(reason: StopReason) -> None:
    branch = Branch(index=0, run_id="0123456789abcdef", status=Status.failed, reason=reason)
    assert REMEDY[reason] in ending_text(branch, 1_000_000_000)


def test_a_run_that_opened_no_sandbox_is_not_told_to_repair_a_tool() -> None:
    error = ErrorInfo(reason="tool_failure", code="manifest", message="there is no sandbox manifest 'nope'")
    branch = Branch(index=0, run_id="r1", status=Status.failed, reason=StopReason.tool_failure, error=error)
    assert "what helps: mend the manifest or the name it is opened by" in ending_text(branch, None)


def test_pace_is_that_of_the_last_half_minute() -> None:
    meter = Meter()
    assert meter.measure(0, 0, 100) == Pace(0.0, None)
    assert meter.measure(10, 20, 100) == Pace(2.0, 40.0)
    assert meter.measure(100, 20, 100).rate == 0.0


def test_the_line_tells_everything_once_it_is_known() -> None:
    line = line_of(state(ok=3, failed=1, rejected=1, waiting=2, cost_micros=20_000), 10, Pace(2.5, 2.0))
    assert line == "5 of 10 done · 2 failed · 2 waiting for a person · $0.02 · 2.5 rows/s · ETA 2.0 s"


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=20), 10) as progress:
        for second in range(12):
            progress.show(state(ok=second // 2), second)
    assert len(out.getvalue().splitlines()) == 1 + 11 // int(EVERY)


def test_quiet_means_nothing_at_all() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True), 10, quiet=True) as progress:
        progress.show(state(ok=1), 1.0)
    assert out.getvalue() == ""


def test_on_a_terminal_one_line_moves() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=120), 10) as progress:
        progress.show(state(ok=5), 1.0)
    assert "5 of 10 done" in out.getvalue()
    assert "█" * 12 + "░" * 12 in out.getvalue()
