"""What the history remembers of what a retry took back."""

from __future__ import annotations

from retinue.runs.contracts import Amendment
from retinue.runs.history import History
from retinue.runs.journal import Intent, Outcome, Record, Retried


def test_records_that_are_said_again_after_a_retry_are_not_taken_for_those_from_before() -> None:
    """Else the record that a crash lost would not be written when the function says it on replay."""
    history = History()
    for number, name in enumerate(("a", "b"), start=1):
        key = f"0/{name}#0"
        history.add(Record(at=number, topic="decision"))
        history.add(Intent(at=number, key=key, effect="step", name=name, digest="d"))
        history.add(Outcome(at=number, key=key, effect="step", name=name, activation=number))
    history.add(Record(at=3, topic="decision"))
    history.add(Retried(at=4, by="ben", keep=1, again="0/b#0", amendment=Amendment(since=4)))
    assert (history.records, len(history.deliveries)) == (2, 1)
    history.add(Outcome(at=5, key="0/b#0", effect="step", name="b", activation=2))
    history.add(Retried(at=6, by="ben", keep=2, again=None, amendment=Amendment(since=6)))
    assert (history.records, len(history.deliveries)) == (2, 2)
    history.add(Retried(at=7, by="ben", keep=0, again=None, amendment=Amendment(since=7)))
    assert (history.records, len(history.deliveries)) == (1, 0)
