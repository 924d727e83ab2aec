"""Which job belongs to (agent, input, output): a small note in the data folder, so that a batch can be resumed.

Owns the note, the key that finds the job in the store, and when a batch may begin or must not. Knows no run.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

from retinue.ingress.outputs import write_whole
from retinue.ingress.shards import has_parts
from retinue.runs.errors import InvalidInput
from retinue.runs.sources import Source
from retinue.store.objects import is_url


@dataclass(frozen=True, slots=True)
class JobNote:
    """What a batch was begun with. `generation` counts how often it was begun anew for the same three."""

    agent: str
    input: str
    output: str
    fingerprint: str
    id_field: str
    limit: int | None
    max_cost: str | None
    model: str | None
    tenant: str | None
    generation: int = 1
    job_id: str | None = None
    ended: bool = False
    parts: str | None = None

    @property
    def key(self) -> str:
        """The idempotency key of the job: the same on every resume."""
        return f"batch:{_digest(self)}:{self.generation}"


_FIXED = {
    "fingerprint": "the input file",
    "id_field": "--id",
    "limit": "--limit",
    "max_cost": "--max-cost",
    "model": "--model",
    "tenant": "--tenant",
    "parts": "--format",
}
"""What a resumed job cannot change: it was accepted with it."""


def note_for(agent: str, source: Source, output: Path | str, options: dict[str, str | None]) -> JobNote:
    """The note of a batch that is asked for; `output` is a file or the URL of a folder of parts, `options` are
    max_cost, model, tenant and the format of parts as given."""
    return JobNote(
        agent=agent,
        input=source.path,
        output=output if isinstance(output, str) else str(output.resolve()),
        fingerprint=source.fingerprint,
        id_field=source.id_field,
        limit=source.limit,
        max_cost=options["max_cost"],
        model=options["model"],
        tenant=options["tenant"],
        parts=options.get("parts"),
    )


def settle(wanted: JobNote, data_folder: Path, *, resume: bool, force: bool) -> JobNote:
    """The job to go on with or to begin. InvalidInput says why it may not be begun, and what to do.

    Without `resume` and `force`, nothing that exists is touched: neither a file nor an unfinished job. `resume`
    goes on with the job of the same agent, input and output, and begins it when there is none. `force` begins
    anew beside what the store has, and replaces the file.
    """
    known = _read(wanted, data_folder)
    if force:
        return replace(wanted, generation=known.generation + 1) if known else wanted
    if resume:
        return _same(known, wanted) if known else wanted
    if known is not None and not known.ended:
        raise InvalidInput(
            f"there is an unfinished job for {wanted.output}: --resume goes on with it, --force begins anew"
        )
    folder = is_url(wanted.output)
    if has_parts(wanted.output) if folder else Path(wanted.output).exists():
        raise InvalidInput(
            f"output {wanted.output} exists: name another {'folder' if folder else 'file'}, or --force replaces it"
            + (", or --resume writes it again from the finished job" if known else "")
        )
    return replace(wanted, generation=known.generation + 1) if known else wanted


def keep(note: JobNote, data_folder: Path) -> None:
    """Write the note, whole or not at all."""
    path = _path(note, data_folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [json.dumps(asdict(note), indent=1) + "\n"])


def _same(known: JobNote, wanted: JobNote) -> JobNote:
    for name, what in _FIXED.items():
        had, has = getattr(known, name), getattr(wanted, name)
        if had != has:
            change = "has changed" if name == "fingerprint" else f"was {had}, and is {has} now"
            raise InvalidInput(
                f"the job to resume was begun with another setting: {what} {change}. Give what it was begun with, "
                "or begin anew with --force"
            )
    return known


def _read(wanted: JobNote, data_folder: Path) -> JobNote | None:
    path = _path(wanted, data_folder)
    try:
        return JobNote(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise InvalidInput(f"the note of the job, {path}, cannot be read ({error}): remove it, then --force") from None


def _path(note: JobNote, data_folder: Path) -> Path:
    return data_folder / "jobs" / f"{_digest(note)}.json"


def _digest(note: JobNote) -> str:
    parts = "\0".join((note.agent, note.input, os.path.normpath(note.output)))
    return blake2b(parts.encode(errors="surrogateescape"), digest_size=10).hexdigest()
