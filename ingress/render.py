"""How runs, money, times and tables read on a terminal. Pure: values in, text out.

Knows no store and no stream.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from retinue.host.answers import Answer, dollars
from retinue.ingress.answering import is_checked, ways
from retinue.ingress.terminal import as_block
from retinue.runs.contracts import MICROS, Branch, Json, PendingRequest, RunRecord
from retinue.runs.machine import remedy_of
from retinue.runs.reviewing import COMMANDS, MARK

CELL = 60
"""Characters a cell of a table may take."""
_QUOTE = 200
SHOWN = 12
"""Characters of an id that tables show; its end, which differs, and which every verb takes."""


def money(micros: int) -> str:
    """Micro-dollars as dollars: `$0.0123`, without needless zeros but with cents."""
    whole, part = divmod(micros, MICROS)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"${whole:,}.{digits}"


def duration(seconds: float) -> str:
    """Seconds as `0.8 s`, `42 s`, `3 m 05 s`, `2 h 07 m`, `3 d 04 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for size, smaller, names in ((86_400, 3_600, "dh"), (3_600, 60, "hm"), (60, 1, "ms")):
        if whole >= size:
            return f"{whole // size} {names[0]} {whole % size // smaller:02d} {names[1]}"
    return f"{whole} s"


def moment(nanoseconds: int | None) -> str:
    """Unix nanoseconds as UTC, to the second; empty for none."""
    if nanoseconds is None:
        return ""
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """So many of a thing: `1 run`, `1,200 runs`; `nouns` where a final s is not enough."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def cut(text: str, most: int) -> str:
    """Text of at most so many characters, `…` for what is left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def short(run_id: str) -> str:
    """The end of an id: ids made in the same hour begin alike."""
    return run_id[-SHOWN:]


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], cell: int = CELL) -> str:
    """An aligned table; cells that are longer than `cell` characters are cut, line ends become spaces."""
    cells = [list(head), *([cut(" ".join(text.split()), cell) for text in row] for row in rows)]
    wide = [max(_width(row[place]) for row in cells) for place in range(len(head))]
    lines = [
        "  ".join(text + " " * (size - _width(text)) for text, size in zip(row, wide, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def standing(record: RunRecord) -> str:
    """The status of a run for people: `queued, held` while an operator holds it."""
    held = record.held and not record.status.terminal
    return f"{record.status.value}, held" if held else record.status.value


def took(record: RunRecord, now_ns: int) -> str:
    """How long a run took, or has taken so far; empty for one that never began."""
    if not record.started_at:
        return ""
    return duration(((record.finished_at or now_ns) - record.started_at) / 1e9)


def run_row(record: RunRecord, now_ns: int) -> list[str]:
    """One line of `retinue ps`; RUN_HEAD names the columns."""
    return [
        short(record.run_id),
        standing(record),
        record.reason.value if record.reason else "",
        record.target,
        record.input_id or "",
        moment(record.created_at),
        took(record, now_ns),
        money(record.usage.micros),
    ]


RUN_HEAD = ("RUN", "STATUS", "REASON", "TARGET", "INPUT", "ACCEPTED", "TOOK", "COST")


def run_facts(record: RunRecord) -> dict[str, Json]:
    """A record as JSON, with its cost in dollars beside."""
    return {**record.model_dump(mode="json"), "cost_usd": dollars(record.usage.micros)}


def answer_text(answer: Answer) -> str:
    """An answer for people: the text, its citations, whatever else came with it."""
    said = answer.answer if isinstance(answer.answer, str) else as_block(answer.answer)
    lines = [said]
    if answer.citations:
        lines += ["", *(_citation(number, cited) for number, cited in enumerate(answer.citations, 1))]
    if answer.details:
        lines += ["", as_block(answer.details)]
    return "\n".join(lines)


def ending_text(branch: Branch, took_ns: int | None) -> str:
    """How a run ended, what it cost, and what helps when it failed."""
    spent = [f"{branch.usage.steps} steps", f"{branch.usage.hops} calls", money(branch.usage.micros)]
    if took_ns is not None:
        spent.append(duration(took_ns / 1e9))
    lines = [f"{branch.status.value} ({branch.reason.value}) · {' · '.join(spent)} · run {branch.run_id}"]
    if branch.error is not None:
        lines.append(f"  why: {branch.error.message}")
    if helps := remedy_of(branch.reason, branch.error.code if branch.error else None):
        lines.append(f"  what helps: {helps}; `retinue inspect {short(branch.run_id)}` tells more")
    return "\n".join(lines)


def request_text(request: PendingRequest) -> str:
    """What a run asks, with the commands that answer it."""
    verbs = ("approve", "deny") if request.kind == "approval" else ("answer",)
    more = {"answer": " happened|absent|fail" if "doubt" in request.facts else " TEXT"}
    typed: Iterable[str] = [f"retinue {v} {request.request_id}{more.get(v, '')}" for v in verbs]
    if is_checked(request):
        typed = ways(request)
    if MARK in request.facts:
        typed = [f"retinue answer {request.request_id} {words}" for words in COMMANDS]
    commands = " or ".join(f"`{each}`" for each in typed)
    return f"run {short(request.run_id)} asks for {request.kind}: {request.prompt}\n  {commands}"


def _citation(number: int, cited: Json) -> str:
    if not isinstance(cited, dict):
        return f"  [{number}] {cited}"
    place = cited.get("document_id") or cited.get("document") or cited.get("source") or cited.get("id") or "?"
    span = f" {cited['start']}-{cited['end']}" if "start" in cited and "end" in cited else ""
    quote = " ".join(str(cited.get("quote", "")).split())
    return f"  [{number}] {place}{span}" + (f": “{cut(quote, _QUOTE)}”" if quote else "")


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
