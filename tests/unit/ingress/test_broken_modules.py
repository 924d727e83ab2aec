"""A project whose code cannot be imported: every verb that needs it says which line, and nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit

BROKEN = {
    "an error": ("import os\n\nRATE = 1 / 0\n", "broken.py line 3: ZeroDivisionError: division by zero"),
    "no message": ("def rate():\n    raise KeyError\n\n\nrate()\n", "broken.py line 2: KeyError"),
    "a syntax error": ("import os\n\nRATE = = 2\n", "broken.py line 3: SyntaxError: invalid syntax"),
    "an exit": ("import sys\n\nsys.exit(3)\n", "broken.py line 3: SystemExit: 3"),
    "in a library": (
        "import json\n\nRATES = json.loads('{')\n",
        "broken.py line 3: JSONDecodeError: Expecting property",
    ),
    "no such library": (
        "\nimport rates_of_nobody\n",
        "broken.py line 2: ModuleNotFoundError: No module named 'rates_of_",
    ),
    "no such name": ("from json import rates\n", "broken.py line 1: ImportError: cannot import name 'rates'"),
    "a wrong definition": (
        "from retinue import agent\n\nit = agent('it', 'Answer.', no_such_option=2)\n",
        "broken.py line 3: agent 'it': unknown option 'no_such_option'",
    ),
}
"""What the module holds, and what is said of it."""

VERBS = {
    "run": ("run", "it", "{}", "--local"),
    "batch": ("batch", "it", "--input", "rows.jsonl", "--output", "out.jsonl", "--local"),
    "doctor": ("doctor",),
    "capabilities": ("capabilities", "list"),
    "mcp": ("mcp", "--tool", "it"),
}


def broken(folder: Path, text: str) -> None:
    """A project with this module."""
    (folder / "retinue.yaml").write_text("modules: [broken]\n")
    (folder / "broken.py").write_text(text)
    (folder / "rows.jsonl").write_text('{"id": 1}\n')


@pytest.mark.parametrize("what", BROKEN)
def test_what_a_module_raises_is_told_with_its_line_and_the_remedy(retinue: Command, folder: Path, what: str) -> None:
    text, told = BROKEN[what]
    broken(folder, text)
    said = retinue("run", "it", "{}", "--local")
    assert (said.code, said.out) == (Exit.usage, "")
    assert said.err.startswith(f"retinue: retinue.yaml: modules: 'broken' cannot be imported: {told}")
    assert "correct the import" in said.err or "mend it or take the module out of `modules:`" in said.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_needs_the_code_says_so(retinue: Command, folder: Path, verb: str) -> None:
    broken(folder, "RATE = 1 / 0\n")
    said = retinue(*VERBS[verb])
    assert said.code == (Exit.failed if verb == "doctor" else Exit.usage)
    assert "'broken' cannot be imported: broken.py line 1: ZeroDivisionError" in said.out + said.err
    assert "internal error" not in said.out + said.err


def test_the_line_is_that_of_the_project_and_of_the_file_where_it_broke(retinue: Command, folder: Path) -> None:
    broken(folder, "import rates_of_them\n")
    (folder / "rates_of_them.py").write_text("import json\n\n\nRATES = json.loads('{')\n")
    assert "'broken' cannot be imported: rates_of_them.py line 4: JSONDecodeError" in retinue("doctor").out
    (folder / "rates_of_them.py").write_text("if True:\nRATES = 2\n")
    assert "rates_of_them.py line 2: IndentationError: expected an indented block" in retinue("doctor").out


def test_what_a_definition_says_itself_is_told_with_its_line(retinue: Command, folder: Path) -> None:
    told = "from retinue import workflow\n\n\n@workflow\nasync def it(ctx, input):\n    return time.time()\n"
    broken(folder, f"import time\n\n{told}")
    said = retinue("run", "it", "{}", "--local").err
    assert "'broken' cannot be imported: broken.py line 6: workflow 'it' uses time.time, which cannot be" in said


def test_a_module_that_is_not_there_is_no_other_whose_name_begins_like_it(retinue: Command, folder: Path) -> None:
    broken(folder, "import brok\n")
    assert "broken.py line 1: ModuleNotFoundError: No module named 'brok'" in retinue("run", "it", "{}").err
    (folder / "retinue.yaml").write_text("modules: [nowhere.deep]\n")
    assert "there is no module 'nowhere.deep'" in retinue("run", "it", "{}").err


def test_after_it_is_mended_it_is_imported_again(retinue: Command, folder: Path) -> None:
    broken(folder, "1 / 0\n")
    assert "cannot be imported" in retinue("capabilities", "list").err
    (folder / "broken.py").write_text("from retinue import agent\n\nit = agent('it', 'Answer the question at once.')\n")
    assert retinue("capabilities", "list").code == Exit.done
