"""Files that say what people have approved, such as capabilities.lock: read whole, replaced whole, kept under version.

Knows no content: what a lock holds is the business of the room that has it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from retinue.runs.errors import ConfigError

L = TypeVar("L", bound=BaseModel)


def read_lock_file(path: Path, kind: type[L]) -> L:
    """What a lock holds; an empty one where there is none. ConfigError when it is no lock."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return kind()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path}: {place}: {first['msg']}; take it back from version control, or remove it and pin again"
        ) from None


def write_lock_file(path: Path, lock: BaseModel) -> None:
    """Replace a lock as a whole, in lines that can be compared. ConfigError when it cannot be written."""
    text = json.dumps(lock.model_dump(mode="json"), indent=2, sort_keys=True)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            print(text, file=file, flush=True)
            os.fsync(file.fileno())
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; check the folder's permissions") from None
