"""A batch whose rows go to parts in a folder of a shared place: what can be told before it begins.

Lists the input and proves the output; reads no row. Knows no run.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Literal

from retinue.host.files import shards_of
from retinue.runs.batch import Parts
from retinue.runs.errors import InvalidInput, StoreError
from retinue.runs.sources import Source
from retinue.store.objects import Objects, is_url, split_url
from retinue.store.places import open_objects

_ROWS_OF_A_SHARD = 32
_PART = re.compile(r"part-\d{5,}\.(jsonl|parquet)(\.dead\.jsonl)?")


def plan_parts(input: str, output: str, source: Source, form: Literal["jsonl", "parquet"], rows: int) -> Parts:
    """The shards of an input and where their rows go; `rows` at a time are shared by as many shards as have 32 each,
    and by two at least: one begins while the last rows of another are awaited.

    `source` says what was asked for besides: the column of ids, the limit. InvalidInput, StoreError.
    """
    shards = shards_of(input, source.id_field)
    if source.limit is not None and len(shards) > 1:
        raise InvalidInput(f"--limit counts the rows of one file, and input {input} is {len(shards)}: name one")
    shards = tuple(shard.model_copy(update={"limit": source.limit}) for shard in shards)
    return Parts(
        folder=folder_of(output),
        shards=shards,
        at_once=min(len(shards), rows, max(2, rows // _ROWS_OF_A_SHARD)),
        format=form,
    )


def whole(input: str, parts: Parts) -> Source:
    """All shards as the one source that was asked for; it has another fingerprint when any of them has."""
    first = parts.shards[0]
    prints = "\0".join(f"{shard.path} {shard.fingerprint}" for shard in parts.shards)
    return first.model_copy(
        update={
            "path": input if is_url(input) else first.path,
            "fingerprint": f"{len(parts.shards)}-{blake2b(prints.encode(), digest_size=8).hexdigest()}",
        }
    )


def folder_of(output: str) -> str:
    """The URL of a folder, ending in a slash. InvalidInput when it names a file or no place."""
    _, path = split_url(output)
    if re.search(r"\.(jsonl|ndjson|json|csv|parquet)$", path):
        raise InvalidInput(f"output {output} names a file: each shard writes one of its own, so name a folder")
    return output if output.endswith("/") else output + "/"


def check_folder(folder: str) -> None:
    """Prove that the folder can be written. InvalidInput names it and the remedy."""
    objects, path = _open(folder)
    probe = f"{path}.retinue-probe"
    try:
        objects.put(probe, b"")
        objects.delete(probe)
    except StoreError as error:
        raise InvalidInput(f"output {folder} cannot be written: {error}") from None


def has_parts(folder: str) -> bool:
    """Whether parts stand in the folder already."""
    return bool(_parts(folder))


def clear_parts(folder: str) -> None:
    """Remove the parts of an earlier job: another number of shards would leave some of them standing."""
    objects, _ = _open(folder)
    for path in _parts(folder):
        objects.delete(path)


def _parts(folder: str) -> list[str]:
    objects, path = _open(folder)
    return [found.path for found in objects.list(path.rstrip("/")) if _PART.fullmatch(found.path.removeprefix(path))]


def _open(folder: str) -> tuple[Objects, str]:
    place, path = split_url(folder)
    return open_objects(place), path
