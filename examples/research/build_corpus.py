"""Builds the example's corpus, questions and gold from the data package `@mdn/browser-compat-data` (CC0-1.0).

    python build_corpus.py --package PATH     (the unpacked package, or its data.json)

Writes `documents/`, `questions.jsonl`, `gold.jsonl` and `NOTICE.md` beside this file, or into `--output`. The same
package gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builder.features import Data, load_data, select_features
from builder.pages import Page, render_page
from builder.questions import write_questions

NOTICE = """# Source of the example's corpus

The pages in `documents/`, the questions in `questions.jsonl` and the gold in `gold.jsonl` are computed by
`build_corpus.py` from `@mdn/browser-compat-data`, version {version}, by the MDN Web Docs contributors, who placed it
in the public domain (CC0-1.0). {pages} pages, {questions} questions.
"""


def build(package: Path, output: Path) -> tuple[int, int]:
    """Write the whole example; returns the numbers of pages and questions."""
    data = load_data(package)
    pages = [render_page(data, feature) for feature in select_features(data)]
    questions, gold = write_questions(data, pages)
    _write_pages(pages, output / "documents")
    _write_rows(questions, output / "questions.jsonl")
    _write_rows(gold, output / "gold.jsonl")
    _write_notice(data, output, len(pages), len(questions))
    return len(pages), len(questions)


def _write_pages(pages: Iterable[Page], folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    for page in pages:
        path = folder / page.document
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page.text.encode())


def _write_rows(rows: Iterable[dict[str, Any]], path: Path) -> None:
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def _write_notice(data: Data, output: Path, pages: int, questions: int) -> None:
    notice = NOTICE.format(version=data.version, pages=pages, questions=questions)
    (output / "NOTICE.md").write_text(notice, encoding="utf-8")


def main() -> None:
    """Read the arguments, build, say what was written."""
    parser = argparse.ArgumentParser(description="Build the research example's corpus, questions and gold.")
    parser.add_argument("--package", type=Path, required=True, help="unpacked package folder, or its data.json")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    pages, questions = build(arguments.package, arguments.output)
    print(f"{pages} pages and {questions} questions in {arguments.output}")


if __name__ == "__main__":
    main()
