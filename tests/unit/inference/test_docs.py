"""The example of docs/models.md is one that the scripted model takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from retinue.inference.catalog import FORMS
from retinue.inference.scripts import load_scripts

DOCS = Path(__file__).parents[3] / "docs" / "models.md"


def test_the_documented_script_loads(tmp_path: Path) -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "script.jsonl"
        path.write_text(json.dumps(json.loads(example)))
        assert len(load_scripts(path)[0].decisions) == 2


def test_every_form_of_name_is_documented() -> None:
    text = DOCS.read_text("utf-8")
    assert [form for form in FORMS if f"`{form}`" not in text] == []
