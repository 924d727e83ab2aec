"""The projects of the measurement: the research example on its own documents or on XQuAD's, and one that waits.

Owns folders and settings. Knows no machine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.cluster.stage import ROOT, write_settings

LEASE = 4.0
HERE = Path(__file__).parent
_SKIPPED = shutil.ignore_patterns(".retinue", "out", "__pycache__", "builder")
_ALLOW_ALL = '@id("all") permit (principal, action, resource);'


def research(folder: Path, limit: int | None = None) -> Path:
    """The research example as it is."""
    shutil.copytree(ROOT / "examples/research", folder, ignore=_SKIPPED)
    _cut(folder / "questions.jsonl", limit)
    return folder


def xquad(folder: Path, data: Path, limit: int | None = None) -> Path:
    """The research example with XQuAD's paragraphs as its documents and its questions as the input."""
    research(folder)
    shutil.rmtree(folder / "documents")
    (folder / "documents").mkdir()
    (folder / "documents/docs.jsonl").write_bytes((data / "docs.jsonl").read_bytes())
    (folder / "questions.jsonl").unlink()
    (folder / "questions.jsonl").write_bytes((data / "questions.jsonl").read_bytes())
    _cut(folder / "questions.jsonl", limit)
    return folder


def watched(folder: Path) -> Path:
    """Let every row of a project leave lines in a log outside of everything."""
    shutil.copy(HERE / "watched.py", folder)
    (folder / "policy/research.cedar").write_text(_ALLOW_ALL)
    return folder


def waiting(folder: Path, rows: int) -> Path:
    """Rows that do nothing but wait for a model."""
    folder.mkdir()
    shutil.copy(HERE / "waiting.py", folder)
    lines = [json.dumps({"id": str(number), "question": "?"}) for number in range(rows)]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def settle(folder: Path, modules: list[str], store: str | None, **more: Any) -> None:
    """Write retinue.yaml: embedded without a store, else on a cluster with the data folder of each machine."""
    settings: dict[str, Any] = {"modules": modules, "principal": "ana", **more}
    if (folder / "policy").is_dir():
        settings["policy"] = {"folder": "policy"}
    if store is not None:
        settings |= {"store": store, "store_key": "${STORE_KEY}", "data": f"/home/retinue/data-{folder.name}"}
    write_settings(folder, settings)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _cut(path: Path, limit: int | None) -> None:
    if limit is not None:
        path.write_text("\n".join(path.read_text("utf-8").splitlines()[:limit]) + "\n", "utf-8")
