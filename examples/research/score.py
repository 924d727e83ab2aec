"""Scores an answers file against gold: which answers are right, by kind of question.

    python score.py answers.jsonl [--gold gold.jsonl] [--documents documents] [--json]

An answer is right when it cites a gold document and says the right thing:
  * a gold answer stands in its text, or a gold span lies inside one of its quotes;
  * where gold offers `choices` (a comparison), a quote proves nothing: of the choices, the answer's text must
    name a right one first.
Words are compared without case, quotation marks and outer punctuation. `right_all` asks for every gold document
to be cited, not just one. Citations are checked first: one whose quote is not what its span holds counts for
nothing (only with --documents; a folder of files or of a docs.jsonl).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_OPENING, _CLOSING = "\"'`“‘«([{*_", "\"'`”’»]}*_.,;:!?…"
MARKS = ("answered", "gold_doc_cited", "all_docs_cited", "answer_found", "span_quoted", "right", "right_all")


def words(text: str) -> list[str]:
    """The words of a text as they are compared: folded, without quotation marks and outer punctuation."""
    return [word for word in (_bare(raw) for raw in text.casefold().split()) if word]


def _bare(word: str) -> str:
    word = word.lstrip(_OPENING)
    while word and (word[-1] in _CLOSING or (word[-1] == ")" and word.count(")") > word.count("("))):
        word = word[:-1]
    return word


def find_words(needle: str, text: list[str]) -> int:
    """Where the words of the needle first stand together in the text, -1 when they do not."""
    sought = words(needle)
    width = len(sought)
    places = range(len(text) - width + 1) if width else range(0)
    return next((place for place in places if text[place : place + width] == sought), -1)


def names_answer(answer: str, gold: Row) -> bool:
    """Whether the text holds a gold answer; of offered choices a right one must be named first."""
    text = words(answer)
    if "choices" not in gold:
        return any(find_words(each, text) >= 0 for each in gold["answers"])
    places = {each: place for each in gold["choices"] if (place := find_words(each, text)) >= 0}
    return bool(places) and min(places, key=lambda each: places[each]) in gold["answers"]


def score_answer(answer: Row | None, gold: Row, documents: dict[str, str] | None = None) -> dict[str, bool]:
    """Every mark of one answer; all are False when there is none."""
    if answer is None:
        return dict.fromkeys(MARKS, False)
    citations = [entry for entry in answer.get("citations") or [] if _is_honest(entry, documents)]
    cited = {entry["document"] for entry in citations}
    found = names_answer(str(answer.get("answer") or ""), gold)
    quoted = any(_holds(entry, span) for entry in citations for span in gold.get("gold_spans", []))
    says = found or (quoted and "choices" not in gold)
    any_doc, all_docs = bool(cited & set(gold["gold_docs"])), cited >= set(gold["gold_docs"])
    return {
        "answered": bool(answer.get("answer")),
        "gold_doc_cited": any_doc,
        "all_docs_cited": all_docs,
        "answer_found": found,
        "span_quoted": quoted,
        "right": any_doc and says,
        "right_all": all_docs and says,
    }


def _holds(citation: Row, span: list[Any]) -> bool:
    document, start, end = span
    return bool(citation["document"] == document and citation["start"] <= start and end <= citation["end"])


def _is_honest(citation: Row, documents: dict[str, str] | None) -> bool:
    if documents is None:
        return True
    text = documents.get(citation["document"])
    return text is not None and text[citation["start"] : citation["end"]] == citation["quote"]


def summarize(answers: Iterable[Row], gold: Iterable[Row], documents: dict[str, str] | None = None) -> Row:
    """Shares of each mark over all questions and for each kind; a question without an answer counts as wrong."""
    by_id = {str(answer["id"]): answer for answer in answers}
    groups: dict[str, list[dict[str, bool]]] = defaultdict(list)
    total: list[dict[str, bool]] = []
    for row in gold:
        marks = score_answer(by_id.get(str(row["id"])), row, documents)
        groups[row["kind"]].append(marks)
        total.append(marks)
    kinds = {kind: _shares(marks) for kind, marks in sorted(groups.items())}
    return {"questions": len(total), "all": _shares(total), "kinds": kinds}


def _shares(marks: list[dict[str, bool]]) -> Row:
    count = len(marks)
    return {"count": count} | {mark: round(sum(m[mark] for m in marks) / max(1, count), 4) for mark in MARKS}


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file. ValueError names file and line of one that is no JSON object with an `id`."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number} is no JSON: {error}") from error
            if not isinstance(row, dict) or "id" not in row:
                raise ValueError(f"{path}:{number} is no JSON object with an id")
            rows.append(row)
    return rows


def read_documents(folder: Path) -> dict[str, str]:
    """The texts that citations point into: every row of a docs.jsonl, every Markdown or text file, by id."""
    documents = {row["id"]: row["text"] for path in folder.rglob("docs.jsonl") for row in read_rows(path)}
    for path in folder.rglob("*"):
        if path.suffix in (".md", ".txt") and path.is_file():
            documents[path.relative_to(folder).as_posix()] = path.read_bytes().decode("utf-8-sig")
    return documents


def format_table(summary: Row) -> str:
    """One line a kind, shares in percent."""
    heads = ("kind", "count", *MARKS)
    lines = ["  ".join(f"{head:>14}" for head in heads)]
    for kind, shares in [*summary["kinds"].items(), ("all", summary["all"])]:
        cells = (f"{100 * shares[mark]:.1f}%" for mark in MARKS)
        lines.append("  ".join(f"{cell:>14}" for cell in (kind, str(shares["count"]), *cells)))
    return "\n".join(lines)


def main() -> int:
    """Score and print; 2 when a file cannot be read."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Score an answers file against gold.")
    parser.add_argument("answers", type=Path)
    parser.add_argument("--gold", type=Path, default=here / "gold.jsonl")
    parser.add_argument("--documents", type=Path, help="check every quote against the documents in this folder")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    arguments = parser.parse_args()
    try:
        documents = read_documents(arguments.documents) if arguments.documents else None
        summary = summarize(read_rows(arguments.answers), read_rows(arguments.gold), documents)
    except (OSError, ValueError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    print(json.dumps(summary) if arguments.json else format_table(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
