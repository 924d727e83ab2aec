"""docs/configuration.md says what Settings are: every key, its default, and a reader that really reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from retinue.host.keys import Keys

ROOT = Path(__file__).resolve().parents[3]
ROW = re.compile(r"^\| `([a-z_.]+)` \| (?:`([^`]*)`|([^|]*)) \| (.+) \| (\S+) \|$", re.MULTILINE)
ROWS = {row[0]: row[1:] for row in ROW.findall((ROOT / "docs/configuration.md").read_text("utf-8"))}
ELSEWHERE = {"budget.hops": "the key is max_tool_hops", "principal": "the default is the user's name"}


def leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its default, as JSON."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", from_json(to_json(value))


DEFAULTS = dict(leaves(Keys()))


def test_the_document_has_every_key_and_no_other() -> None:
    assert sorted(ROWS) == sorted(set(DEFAULTS) - {"budget.hops"})


@pytest.mark.parametrize("key", sorted(set(DEFAULTS) - set(ELSEWHERE)))
def test_the_document_says_the_default(key: str) -> None:
    default = DEFAULTS[key]
    assert ROWS[key][0] == (default if isinstance(default, str) else json.dumps(default))


@pytest.mark.promise("K1")
@pytest.mark.parametrize("key", sorted(ROWS))
def test_the_reader_of_a_key_reads_it(key: str) -> None:
    source = (ROOT / ROWS[key][3]).read_text("utf-8")
    # `settings.policy.folder`, or a property that makes a path of it absolute: `settings.policy_folder`.
    names = {key, key.replace(".", "_"), f"{key}_folder", key.removeprefix("policy.")}
    if key.partition(".")[0] in ("budget", "limits", "requests", "breakers", "capability_sessions"):
        names = {key.partition(".")[0]}
    assert any(re.search(rf"settings\.{re.escape(name)}\b", source) for name in names), f"nothing reads {key}"
