"""Tools over a folder of documents: search and read, for agents of any project.

The index is made when it is first asked and shared by all processes through its cache. Knows no agent.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from retinue.memory.index import Corpus, open_corpus
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.sessions.native import NativeTool, tool

_MOST_CHARACTERS = 20_000


def document_tools(folder: Path | str, cache_folder: Path | str | None = None) -> list[NativeTool[..., Any]]:
    """`search(query, k)` and `read(document, start)` over Markdown, text, HTML, PDF and docs.jsonl files.

    The index is kept in `cache_folder`, by default `.retinue/index` beside the folder. Errors come when a tool
    is called: a folder without readable documents is a PermanentError that says why.
    """
    documents = Path(folder)
    kept = Path(cache_folder) if cache_folder is not None else documents.parent / ".retinue" / "index"

    @cache
    def corpus() -> Corpus:
        return open_corpus(documents, kept)

    @tool(side_effect="read")
    def search(query: str, k: int = 5) -> list[dict[str, Any]]:
        """Find the passages that match a query best: document, title, start, end, text, score."""
        try:
            found = corpus().search(query, min(k, 20))
        except InvalidInput as error:
            raise PermanentError(str(error), code="no_documents") from None
        return [
            {
                "document": passage.document_id,
                "title": passage.title,
                "start": passage.start,
                "end": passage.end,
                "text": passage.text,
                "score": round(passage.score, 4),
            }
            for passage in found
        ]

    @tool(side_effect="read")
    def read(document: str, start: int = 0) -> dict[str, Any]:
        """Read a document from a character on, at most 20,000 characters at once."""
        try:
            found = corpus().read(document)
        except InvalidInput as error:
            raise PermanentError(str(error), code="unknown_document") from None
        end = min(start + _MOST_CHARACTERS, len(found.text))
        text = found.text[start:end]
        return {"document": document, "title": found.title, "start": start, "end": end, "text": text}

    return [search, read]
