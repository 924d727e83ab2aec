"""The gate of a process whose rules may change: the newest complete set of rules, swapped in one step.

Owns when a changed folder is taken: as a whole, once it has stood still for a look, and only if all of it is good;
else the set before stays in force. Knows no clock: whoever looks decides how often.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from retinue.policy.invariants import Invariants
from retinue.policy.load import make_gate, read_texts
from retinue.policy.rules import Rule
from retinue.runs.errors import ConfigError
from retinue.runs.gate import GateDecision, GateRequest

_LOG = logging.getLogger("retinue.policy")


class LiveGate:
    """Implements `runs.gate.Gate`. Each decision comes from one set of rules; `look` may take a newer one.

    Decisions may be asked for by any thread meanwhile; one thread at a time may look.
    """

    def __init__(
        self,
        folder: Callable[[], Path | None],
        invariants: Invariants | None = None,
        roles: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """`folder` says where the rules are now (None: the shipped defaults). Raises ConfigError as `load_gate`."""
        self._folder = folder
        self._invariants = invariants or Invariants()
        self._roles = roles or {}
        self._place = folder()
        self._texts = read_texts(self._place)
        self._gate = make_gate(self._texts, self._invariants, self._roles)
        self._moving: dict[str, str] | None = None
        self._refused: dict[str, str] | None = None
        self.problem: str | None = None

    @property
    def digest(self) -> str:
        """Hash of the rules in force."""
        return self._gate.digest

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return self._gate.rules

    @property
    def in_force(self) -> dict[str, str | None]:
        """The digest in force, and what is wrong with rules that are not taken."""
        return {"digest": self.digest, "problem": self.problem}

    def decide(self, request: GateRequest) -> GateDecision:
        """See Gate; the whole decision is made by the set that is in force as it begins."""
        return self._gate.decide(request)

    def look(self) -> bool:
        """Take the rules in the folder if they have changed, stand still since the look before, and are good.

        True when another set is in force now. `problem` says what is wrong with rules that are not taken.
        """
        try:
            texts = self._read()
        except (ConfigError, OSError) as error:
            self._keep(str(error))
            return False
        if texts == self._texts:
            self._moving, self._refused, self.problem = None, None, None
            return False
        if texts == self._refused:
            return False
        if texts != self._moving:
            self._moving = texts
            return False
        return self._take(texts)

    def _read(self) -> dict[str, str]:
        """The rules as they stand now. A folder that was there and is gone is no word for the shipped defaults."""
        place = self._folder()
        if place is None and self._place is not None:
            raise ConfigError(f"policy folder {str(self._place)!r} is gone. Put it back, or restart without it.")
        return read_texts(place)

    def _take(self, texts: dict[str, str]) -> bool:
        try:
            gate = make_gate(texts, self._invariants, self._roles)
        except ConfigError as error:
            self._refused = texts
            self._keep(str(error))
            return False
        before = self._gate.digest
        self._texts, self._place = texts, self._folder()
        self._moving, self._refused, self.problem = None, None, None
        self._gate = gate  # last: others look on, and see no problem beside the rules that ended it
        _LOG.warning(
            "the rules have changed: digest %s is in force, %d rules; before: %s", gate.digest, len(gate.rules), before
        )
        return gate.digest != before

    def _keep(self, problem: str) -> None:
        if problem != self.problem:
            _LOG.error("the rules were changed and are not taken, digest %s stays in force: %s", self.digest, problem)
        self.problem = problem
