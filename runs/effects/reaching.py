"""The link of a call to the sandbox of its run: the box, what an exec tells while it runs, the hosts it asks for.

Output becomes records, at most one a second; each host is the gate's stage `egress`, asked once a call. Knows no
capability and no backend.
"""

from __future__ import annotations

from retinue.runs.capabilities import Caller
from retinue.runs.contracts import Json
from retinue.runs.effects.gates import Concern, decide
from retinue.runs.effects.run import Run
from retinue.runs.journal import Record
from retinue.runs.sandboxes import Box, Opening, SandboxState, Watch
from retinue.runs.sessions import Resumption, Token, Wire

_TOLD, _APART = 100, 1_000_000_000
"""How often output is told of one call at most, and how far apart (ns)."""
_SHOWN = 2_000
"""Characters of each stream, its newest, that are told at once."""
_HOSTS = 256
"""Different hosts and ports that one call may ask for."""


class BoxLink:
    """Implements `sandboxes.Reach` and `sessions.Link` for one call. A `silent` one tells nothing."""

    resumption: Resumption | None = None

    def __init__(
        self, run: Run, key: str, place: str | None, box: Box | None, caller: Caller, *, silent: bool = False
    ) -> None:
        self.place = place
        self.box = box
        self.watch = Watch(_Teller(run, key, place, silent).take, _Porter(run, key, caller).allow)
        self._run = run
        self._key = key

    async def open(self, opening: Opening) -> SandboxState:
        """See Reach."""
        self.place = await self._run.boxes.open(opening, self._key)
        return self._run.boxes.state(self.place).model_copy(update={"sandbox_id": self.place})

    async def close(self) -> None:
        """See Reach."""
        if self.place is not None:
            await self._run.boxes.close(self.place, self._key)

    def opened(self, wire: Wire) -> None:
        """There is no connection."""

    def lost(self, cause: str) -> None:
        """There is no connection."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """What is told is output."""

    async def keep(self, token: Token | None) -> None:
        """Nothing goes on in another process."""


class _Teller:
    """Gathers what a call writes and puts the newest of it on record now and then."""

    def __init__(self, run: Run, key: str, place: str | None, silent: bool) -> None:
        self._run = run
        self._key = key
        self._place = place
        self._told = _TOLD if silent else 0
        self._newest = run.services.now_ns()
        self._text: dict[str, str] = {}
        self._bytes: dict[str, int] = {}

    def take(self, stream: str, text: str) -> None:
        """Output that has come."""
        if self._told >= _TOLD:
            return
        self._text[stream] = (self._text.get(stream, "") + text)[-_SHOWN:]
        self._bytes[stream] = self._bytes.get(stream, 0) + len(text.encode())
        now = self._run.services.now_ns()
        if now - self._newest < _APART:
            return
        self._told, self._newest = self._told + 1, now
        facts: dict[str, Json] = {"key": self._key, "name": "output", "place": self._place, "bytes": dict(self._bytes)}
        self._run.note(Record(at=now, topic="output", by="runtime", facts=facts, content=dict(self._text)))
        self._text.clear()


class _Porter:
    """Asks the gate for each host that a call wants to reach."""

    def __init__(self, run: Run, key: str, caller: Caller) -> None:
        self._run = run
        self._key = key
        self._caller = caller
        self._said: dict[tuple[str, int], bool] = {}
        self._full = False

    def allow(self, host: str, port: int) -> bool:
        """What the gate says of a host, once a call; on the event loop. Past the limit it is not asked."""
        known = self._said.get((host, port))
        if known is None and len(self._said) >= _HOSTS:
            return self._too_many()
        if known is None:
            known = self._said[host, port] = self._ask(host, port)
        return known

    def _too_many(self) -> bool:
        """Refuse, and say so once."""
        if not self._full:
            self._full = True
            facts: dict[str, Json] = {"key": self._key, "name": "too_many_hosts", "most": _HOSTS}
            self._run.note(Record(at=self._run.services.now_ns(), topic="egress", by="runtime", facts=facts))
        return False

    def _ask(self, host: str, port: int) -> bool:
        facts = {name: self._caller.facts.get(name) for name in ("manifest", "profile", "reviewed")}
        asked: dict[str, Json] = {**facts, "host": host, "port": port}
        resource = str(facts["manifest"])
        concern = Concern("egress", resource, asked, self._key, contract="at_most_once")
        return decide(self._run, concern).outcome == "allow"
