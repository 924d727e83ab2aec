"""How long people are waited for, and who is asked when the first one does not answer. Pure data."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import InvalidInput
from retinue.runs.joins import seconds

_SECOND = 1_000_000_000


def _in_seconds(value: Any) -> Any:
    """Seconds, from a number or from text such as `2h`. ValueError names the forms."""
    try:
        return seconds(value) if isinstance(value, str) else value
    except InvalidInput as error:
        raise ValueError(str(error)) from None


Seconds = Annotated[float | None, BeforeValidator(_in_seconds)]
Span = Annotated[float, BeforeValidator(_in_seconds)]
"""As `Seconds`, where there has to be one."""


class Patience(Frozen):
    """After `timeout` seconds no answer counts any more; after `escalate_after` the question goes to `escalate_to`.

    None waits for ever, or asks nobody else. `assignee` is who is asked first.
    """

    timeout: Seconds = Field(default=None, gt=0)
    assignee: str | None = None
    escalate_after: Seconds = Field(default=None, gt=0)
    escalate_to: str | None = None

    def expiry(self, asked_at: int) -> int | None:
        """When a question of `asked_at` expires, Unix ns."""
        return None if self.timeout is None else asked_at + int(self.timeout * _SECOND)

    def moments(self, asked_at: int) -> dict[str, Json]:
        """What the journal keeps of it with a question of `asked_at` (Unix ns)."""
        after = self.escalate_after
        return {
            "assignee": self.assignee,
            "expires_at": self.expiry(asked_at),
            "escalate_at": None if after is None else asked_at + int(after * _SECOND),
            "escalate_to": self.escalate_to,
        }


ENDLESS = Patience()

Duration = float | str | timedelta


def patience(timeout: Duration | None, to: str | None, escalate: tuple[Duration, str] | None) -> Patience | None:
    """From what a workflow says of a question; None when it says nothing. InvalidInput for a bad duration."""
    if timeout is None and to is None and escalate is None:
        return None
    after, name = escalate if escalate is not None else (None, None)
    for what, value in (("timeout", timeout), ("escalate", after)):
        if value is not None and seconds(value) <= 0:
            raise InvalidInput(f"{what} {value!r}: a question must be given some time, such as '30m'")
    return Patience(
        timeout=None if timeout is None else seconds(timeout),
        assignee=to,
        escalate_after=None if after is None else seconds(after),
        escalate_to=name,
    )
