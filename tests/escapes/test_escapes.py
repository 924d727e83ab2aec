"""Every attempt to get out of a sandbox comes to what docs/escapes.md says, under each confinement and as each user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

import pytest
from tests.escapes import document
from tests.escapes.run import GROUPS, found, found_by_everybody
from tests.escapes.trials import CONFINEMENTS, Outcome, usable

pytestmark = [
    pytest.mark.promise("E4"),
    pytest.mark.skipif(sys.platform != "linux", reason="the confinements are Linux's"),
    pytest.mark.timeout(300),
]

WORSE = ("stopped", "limited", "open")
USER = "root" if os.geteuid() == 0 else "user"
AS_DOCUMENTED = f"Found with: {document.features()}." in document.PAGE.read_text()
LONG = (("landlock", "limits"), ("landlock", "host"))


def check(column: str, outcomes: Mapping[str, Outcome]) -> None:
    """As documented; where this machine has other features than that of the page, nothing is worse than there."""
    written = document.read(document.PAGE.read_text())[column]
    wrong = {
        attempt: f"{outcome.state} ({outcome.said}), the page says {written.get(attempt)}"
        for attempt, outcome in outcomes.items()
        if not _fits(outcome.state, written.get(attempt), confined=not column.startswith("unconfined"))
    }
    assert wrong == {}, f"{column}: regenerate docs/escapes.md when this is meant"


def _fits(state: str, written: str | None, *, confined: bool) -> bool:
    if AS_DOCUMENTED or written is None:
        return state == written
    return not confined or WORSE.index(state) <= WORSE.index(written)


def _cases() -> Iterable[object]:
    for name in CONFINEMENTS:
        for group in GROUPS if name != "unconfined" else ("inside",):
            yield pytest.param(name, group, marks=[pytest.mark.long] if (name, group) in LONG else [])


@pytest.mark.parametrize(("name", "group"), [*_cases()])
async def test_attempts_come_to_what_the_page_says(name: str, group: str) -> None:
    if not usable(name):
        pytest.skip(f"{name} is not here")
    outcomes = await found(name, group)
    assert len(outcomes) > 10
    check(f"{name} {USER}", outcomes)


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user already")
@pytest.mark.parametrize("groups", [("inside",), pytest.param(("limits", "host", "egress"), marks=pytest.mark.long)])
async def test_an_ordinary_users_attempts_come_to_what_the_page_says(groups: tuple[str, ...]) -> None:
    for name, outcomes in (await found_by_everybody(*groups)).items():
        check(f"{name} user", outcomes)


def test_the_page_has_every_attempt_and_no_other() -> None:
    page = document.read(document.PAGE.read_text())
    attempts = [attempt for attempts in document.CLASSES.values() for attempt in attempts]
    assert len(attempts) == len(set(attempts)) > 150
    for column in document.COLUMNS[:4]:
        assert list(page[column]) == attempts


def test_what_is_open_says_why() -> None:
    page = document.read(document.PAGE.read_text())
    for column in document.COLUMNS[:4]:
        for attempt, state in page[column].items():
            assert state == "stopped" or document.why_open(column, attempt), f"{column}: {attempt} is {state}"


def test_most_attempts_work_where_nothing_stops_them() -> None:
    """What is stopped there as well is stopped by the kernel, or by how every program is started."""
    page = document.read(document.PAGE.read_text())
    real = {attempt for column in document.COLUMNS[4:] for attempt, state in page[column].items() if state == "open"}
    inside = [one for name in list(document.CLASSES)[:4] for one in document.CLASSES[name]]
    assert len(real) > 0.7 * len(inside)
    assert not [attempt for attempt in document.CLASSES["Files"][:17] if attempt not in real]


def test_the_page_is_written_as_it_is_read() -> None:
    page = document.read(document.PAGE.read_text())
    results = {column: {one: Outcome(state) for one, state in rows.items()} for column, rows in page.items()}  # type: ignore[arg-type]
    written = document.render(results)
    assert document.read(written) == page
    assert written.split("Found with")[0] == document.PAGE.read_text().split("Found with")[0]
    assert written.split("## Files")[1] == document.PAGE.read_text().split("## Files")[1]
