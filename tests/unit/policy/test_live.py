"""Rules that change while they are in force: taken whole, when they stand still and are good, or not at all."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from tests.unit.policy.asking import WRITE, ask

from retinue.policy.live import LiveGate
from retinue.runs.errors import ConfigError
from retinue.runs.gate import GateDecision

RELOADS = 200
PERMIT = '@id("p{n}") @reason("set {n}") permit (principal, action, resource);\n'
FORBID = '@id("f{n}") @reason("set {n}") forbid (principal, action, resource == Capability::"refund");\n'


def write(folder: Path, text: str, name: str = "rules.cedar") -> None:
    """Put a rule file in its place whole."""
    draft = folder / f"{name}.draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, PERMIT.format(n=0))
    return tmp_path


def live(folder: Path) -> LiveGate:
    return LiveGate(lambda: folder)


@pytest.mark.promise("F2")
def test_changed_rules_are_taken_when_they_have_stood_still(folder: Path) -> None:
    gate = live(folder)
    before = gate.digest
    assert gate.look() is False and gate.decide(ask(**WRITE)).outcome == "allow"
    write(folder, PERMIT.format(n=1) + FORBID.format(n=1))
    assert gate.look() is False and gate.digest == before
    assert gate.look() is True and gate.digest != before
    assert gate.decide(ask(**WRITE)).outcome == "deny"
    assert gate.look() is False


@pytest.mark.promise("F2")
def test_rules_that_are_still_being_written_are_not_taken(folder: Path) -> None:
    gate = live(folder)
    before = gate.digest
    for number in range(5):
        write(folder, PERMIT.format(n=number), f"part{number}.cedar")
        (folder / "rules.cedar").unlink(missing_ok=True)
        assert gate.look() is False and gate.digest == before
    assert gate.look() is True and len(gate.rules) == 5


@pytest.mark.promise("F2")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: write(folder, "permit (principal, action"), "rules.cedar:1"),
        (lambda folder: write(folder, PERMIT.format(n=0), "again.cedar"), "is taken by"),
        (lambda folder: (folder / "rules.cedar").unlink(), "holds no .cedar file"),
        (lambda folder: (folder / "rules.cedar").write_bytes(b"\xff"), "UTF-8"),
        (lambda folder: folder.rename(folder.with_name("elsewhere")), "does not exist"),
    ],
)
def test_a_bad_set_leaves_the_old_one_in_force(
    folder: Path, spoil: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = live(folder)
    before = gate.digest
    spoil(folder)  # type: ignore[operator]
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert gate.look() is False
    assert gate.digest == before and gate.decide(ask(**WRITE)).outcome == "allow"
    assert gate.problem is not None and said in gate.problem and gate.in_force["problem"] == gate.problem
    assert len(caplog.records) == 1 and said in caplog.text
    folder.mkdir(exist_ok=True)
    (folder / "again.cedar").unlink(missing_ok=True)
    write(folder, PERMIT.format(n=0))
    gate.look()
    assert gate.problem is None


@pytest.mark.promise("F2")
def test_a_folder_that_is_gone_is_no_word_for_the_shipped_rules(folder: Path) -> None:
    places: list[Path | None] = [folder]
    gate = LiveGate(lambda: places[0])
    places[0] = None
    assert (gate.look(), gate.look(), gate.rules[0].id) == (False, False, "p0")
    assert gate.problem is not None and "is gone" in gate.problem


def test_a_folder_that_appears_replaces_the_shipped_rules(folder: Path) -> None:
    places: list[Path | None] = [None]
    gate = LiveGate(lambda: places[0])
    places[0] = folder
    assert (gate.look(), gate.look(), [rule.id for rule in gate.rules]) == (False, True, ["p0"])


def test_a_start_with_bad_rules_is_refused(folder: Path) -> None:
    write(folder, "permit")
    with pytest.raises(ConfigError):
        live(folder)


@pytest.mark.promise("F2")
def test_every_decision_comes_from_one_set_while_rules_are_taken_two_hundred_times(folder: Path) -> None:
    gate = live(folder)
    known = {gate.digest: 0}
    over = threading.Event()
    said: list[list[GateDecision]] = [[], [], []]

    def decide(mine: list[GateDecision]) -> None:
        number = 0
        while not over.is_set() or number < 100:
            number += 1
            mine.append(gate.decide(ask(**WRITE, arguments={"amount": number % 7})))
            over.wait(0.0002)

    threads = [threading.Thread(target=decide, args=(mine,)) for mine in said]
    for thread in threads:
        thread.start()
    for number in range(1, RELOADS + 1):
        write(folder, PERMIT.format(n=number) + (FORBID.format(n=number) if number % 2 else ""))
        gate.look()
        assert gate.look()
        known[gate.digest] = number
    over.set()
    for thread in threads:
        thread.join()
    assert len(known) == RELOADS + 1
    for decision in (each for mine in said for each in mine):
        number = known[decision.digest]
        kind = "f" if number % 2 else "p"
        assert (decision.outcome, [hit.rule for hit in decision.rules]) == (
            "deny" if number % 2 else "allow",
            [f"{kind}{number}"],
        )
    for mine in said:
        seen = [known[decision.digest] for decision in mine]
        assert seen == sorted(seen) and len(set(seen)) > 10
