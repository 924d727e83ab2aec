"""The index: recall, exact spans, one build for many processes, and what happens to a damaged cache."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retinue.memory.index import MAX_RESULTS, Corpus, match_expression, open_corpus
from retinue.memory.quotes import find_quotes
from retinue.runs.errors import InvalidInput, UnknownName

TOWNS = ("Arnhem", "Bergen", "Colmar", "Dole", "Esbjerg", "Faro")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, town in enumerate(TOWNS):
        text = (
            f"# {town}\n\nThe town is old. Its bridge was opened in {1900 + number}.\n\n## Trade\n\nIt trades fish.\n"
        )
        (folder / f"{town.lower()}.md").write_text(text)
    (folder / "broken.pdf").write_bytes(b"no pdf")
    return folder


@pytest.fixture
def corpus(folder: Path, tmp_path: Path) -> Corpus:
    return open_corpus(folder, tmp_path / "cache")


def test_a_search_finds_the_document_that_the_question_is_about(corpus: Corpus) -> None:
    for town in TOWNS:
        best = corpus.search(f"When was the bridge of {town} opened?", k=3)[0]
        assert (best.document_id, best.title) == (f"{town.lower()}.md", town)
        assert corpus.read(best.document_id).text[best.start : best.end] == best.text
        assert best.score > 0


def test_a_quote_is_an_exact_span_of_its_document(corpus: Corpus) -> None:
    question = "When was the bridge of Colmar opened?"
    quotes = find_quotes(question, corpus.search(question, k=3), limit=2)
    assert quotes[0].document_id == "colmar.md"
    assert quotes[0].text.endswith("Its bridge was opened in 1902.")
    for quote in quotes:
        assert corpus.read(quote.document_id).text[quote.start : quote.end] == quote.text


def test_words_meet_in_their_stems_and_without_accents(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.md").write_text("The cafés were closing.", encoding="utf-8")
    corpus = open_corpus(tmp_path / "in", tmp_path / "cache")
    assert len(corpus.search("closed")) == len(corpus.search("CAFE")) == 1


@pytest.mark.parametrize("query", ['"', "a AND (b", "NEAR(", "col:x*", "-", "", "?!", "^x", "\0", "' OR 1=1 --"])
def test_no_query_is_a_syntax_error(corpus: Corpus, query: str) -> None:
    assert isinstance(corpus.search(query), list)


def test_a_query_is_bounded(corpus: Corpus) -> None:
    assert corpus.search("bridge " * 100_000 + "Arnhem")
    assert match_expression("the of and") == '"the" OR "of" OR "and" OR "the of" OR "of and"'
    for k in (0, -1, MAX_RESULTS + 1):
        with pytest.raises(InvalidInput, match=f"k is {k}"):
            corpus.search("bridge", k)


def test_words_of_half_of_all_passages_are_left_out_while_others_remain() -> None:
    assert match_expression("bridge Faro", frozenset({"bridg"})) == '"faro" OR "bridge faro"'
    assert match_expression("bridges", frozenset({"bridg"})) == '"bridges"'


def test_an_unknown_document_is_answered_with_close_ones(corpus: Corpus) -> None:
    with pytest.raises(UnknownName, match=r"'arnem\.md'.*arnhem\.md"):
        corpus.read("arnem.md")


def test_titles_documents_and_skipped_list_the_whole_folder(corpus: Corpus) -> None:
    assert corpus.titles() == [(f"{town.lower()}.md", town) for town in TOWNS]
    assert [document.title for document in corpus.documents()] == list(TOWNS)
    assert [entry.source for entry in corpus.skipped()] == ["broken.pdf"]


def test_the_index_is_built_once_and_again_when_a_file_changes(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    before = corpus.path.stat().st_mtime_ns
    again = open_corpus(folder, tmp_path / "cache")
    assert (again.path, again.path.stat().st_mtime_ns) == (corpus.path, before)
    (folder / "faro.md").write_text("# Faro\n\nIts lighthouse shines.\n")
    changed = open_corpus(folder, tmp_path / "cache")
    assert changed.path != corpus.path
    assert changed.search("lighthouse")
    assert not corpus.search("lighthouse")


def test_old_indexes_leave_the_cache_and_stay_readable_to_who_has_them_open(
    folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    for number in range(4):
        (folder / "faro.md").write_text(f"# Faro\n\nState {number:03}.\n" + "x" * number)
        newest = open_corpus(folder, tmp_path / "cache")
    assert newest.path in set((tmp_path / "cache").glob("*.sqlite3"))
    assert len(list((tmp_path / "cache").glob("*.sqlite3"))) == 2
    assert not corpus.path.exists()
    assert corpus.search("Arnhem")


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
def test_a_damaged_index_is_built_again(folder: Path, corpus: Corpus, tmp_path: Path, damage: bytes) -> None:
    corpus.close()
    corpus.path.write_bytes(damage)
    assert open_corpus(folder, tmp_path / "cache").search("Arnhem")


def test_many_processes_and_threads_open_a_fresh_index_at_once(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from retinue.memory.index import open_corpus\n"
        "print(open_corpus(Path(sys.argv[1]), Path(sys.argv[2])).search('bridge of Dole', 1)[0].document_id)"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in running] == [b"dole.md\n"] * 4
    assert len(list((tmp_path / "cache").glob("*.sqlite3"))) == 1
    assert not list((tmp_path / "cache").glob("*.building"))
    corpus = open_corpus(folder, tmp_path / "cache")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda town: corpus.search(town, 1)[0].title, TOWNS * 20))
    assert found == list(TOWNS) * 20
    corpus.close()


def test_a_folder_without_a_readable_document_says_why(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidInput, match=r"holds no documents; it needs files like .*\.md"):
        open_corpus(tmp_path / "in", tmp_path / "cache")
    (tmp_path / "in" / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInput, match=r"1 skipped: a\.txt: not UTF-8"):
        open_corpus(tmp_path / "in", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.sqlite3"))


def test_a_cache_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match=r"index cache .*file.* cannot be written"):
        open_corpus(folder, tmp_path / "file")
