"""The statuses of a capability session and the moves between them."""

from __future__ import annotations

import pytest

from retinue.runs.sessions import MOVES, IllegalSessionMove, SessionStatus, check_move

pytestmark = pytest.mark.promise("D3")


def test_every_status_has_its_moves_and_can_be_left_by_closing() -> None:
    assert set(MOVES) == set(SessionStatus)
    for status, targets in MOVES.items():
        assert (SessionStatus.closed in targets) == (status is not SessionStatus.closed)


@pytest.mark.parametrize("status", SessionStatus)
def test_what_the_table_does_not_have_is_an_error_that_names_both(status: SessionStatus) -> None:
    for wanted in SessionStatus:
        if wanted in MOVES[status]:
            check_move("s1", status, wanted)
            continue
        with pytest.raises(IllegalSessionMove) as caught:
            check_move("s1", status, wanted)
        assert f"is {status} and cannot become {wanted}" in str(caught.value)


def test_a_lost_session_is_never_waited_for() -> None:
    """Nobody answers a question of a session that has to begin anew."""
    assert MOVES[SessionStatus.reinitialize_required] == {SessionStatus.in_progress, SessionStatus.closed}
