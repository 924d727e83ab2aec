"""Projects on disk for tests that go the public way: a folder with settings, a policy and a script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinue.host.settings import Settings, load_settings
from retinue.runs.contracts import Json

ALLOW_ALL = '@id("all") permit (principal, action, resource);'


def project(
    folder: Path,
    *lines: Mapping[str, Json],
    modules: Sequence[str] = (),
    policy: str = ALLOW_ALL,
    settings: Mapping[str, Any] | None = None,
) -> Settings:
    """Write a project whose model is scripted by `lines`, and read its settings."""
    (folder / "policy").mkdir(parents=True, exist_ok=True)
    (folder / "policy" / "rules.cedar").write_text(policy)
    script(folder, *lines)
    given = {"modules": list(modules), "default_model": "scripted:model.jsonl", "principal": "ana"}
    (folder / "retinue.yaml").write_text(json.dumps({**given, **(settings or {})}))
    return load_settings(folder)


def script(folder: Path, *lines: Mapping[str, Json]) -> None:
    """What the model decides: lines of `match` and `decisions`; without any, it says 42."""
    told = lines or ({"match": {}, "decisions": [{"answer": "42"}]},)
    (folder / "model.jsonl").write_text("\n".join(json.dumps(line) for line in told) + "\n")


def decides(*decisions: Mapping[str, Json], **match: Json) -> dict[str, Json]:
    """One script line."""
    return {"match": match, "decisions": list(decisions)}
