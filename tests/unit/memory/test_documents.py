"""Documents of a folder: every readable kind, and a reason for whatever could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinue.memory.documents import Document, Skipped, find_sources, read_sources
from retinue.runs.errors import InvalidInput


def write_pdf(path: Path, words: str) -> None:
    """A one-page PDF with a text layer, built by hand from the five objects it needs."""
    stream = f"BT /F1 12 Tf 72 720 Td ({words}) Tj ET".encode()
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(data)
    path.write_bytes(data + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer)


def read(folder: Path) -> tuple[dict[str, Document], dict[str, str]]:
    items = list(read_sources(find_sources(folder)))
    documents = {item.id: item for item in items if isinstance(item, Document)}
    return documents, {item.source: item.reason for item in items if isinstance(item, Skipped)}


def test_every_kind_of_file_becomes_a_document(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.md").write_bytes(b"# The `First`\r\n\r\nText.\r\n")
    (tmp_path / "b.txt").write_text("plain", encoding="utf-8-sig")
    (tmp_path / "c.html").write_text(
        "<html><head><title>See &amp; hear</title><style>p {}</style></head>"
        "<body><h2>Part</h2><p>Some <b>bold</b>\n text.</p><script>hidden()</script><ul><li>item</ul></body></html>"
    )
    write_pdf(tmp_path / "d.pdf", "Words inside a PDF")
    (tmp_path / "e.md").write_text("---\ntitle: 'From front matter'\n---\nBody\n")
    documents, skipped = read(tmp_path)
    assert skipped == {}
    assert documents["deep/a.md"].text == "# The `First`\r\n\r\nText.\r\n"
    assert {key: document.title for key, document in documents.items()} == {
        "b.txt": "b", "c.html": "See & hear", "d.pdf": "d", "deep/a.md": "The First", "e.md": "From front matter",
    }  # fmt: skip
    assert documents["b.txt"].text == "plain"
    assert documents["c.html"].text == "## Part\n\nSome bold text.\n\n- item"
    assert documents["d.pdf"].text == "Words inside a PDF"


def test_rows_of_docs_jsonl_are_documents_and_bad_rows_are_named(tmp_path: Path) -> None:
    rows = [json.dumps({"id": "one", "title": "One", "text": "First."}), "{half", '["list"]', '{"id": "two"}', ""]
    rows += [json.dumps({"id": "one", "text": "again"}), json.dumps({"id": "bad", "text": "\ud800"})]
    rows += ["[" * 200_000, json.dumps({"id": "three", "text": "Third."})]
    (tmp_path / "docs.jsonl").write_text("\n".join(rows), encoding="utf-8")
    documents, skipped = read(tmp_path)
    assert set(documents) == {"one", "three"}
    assert documents["three"].title == "three"
    assert set(skipped) == {
        "docs.jsonl:2",
        "docs.jsonl:3",
        "docs.jsonl:4",
        "docs.jsonl",
        "docs.jsonl:7",
        "docs.jsonl:8",
    }
    assert "'text'" in skipped["docs.jsonl:4"]
    assert "already used by docs.jsonl" in skipped["docs.jsonl"]


def test_what_cannot_be_read_is_skipped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing more")
    (tmp_path / "empty.md").write_text("  \n")
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    documents, skipped = read(tmp_path)
    assert documents == {}
    assert set(skipped) == {"latin.txt", "broken.pdf", "empty.md", "binary.txt"}
    assert "not UTF-8 at byte 3" in skipped["latin.txt"]
    assert all(skipped.values())


def test_questions_hidden_files_and_ways_out_of_the_folder_are_no_documents(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.md"
    (inside / ".git").mkdir(parents=True)
    outside.write_text("secret")
    for name in ("questions.jsonl", "gold.jsonl", ".hidden.md", ".git/readme.md", "image.png"):
        (inside / name).write_text('{"id": "q", "text": "t"}')
    (inside / "link.md").symlink_to(outside)
    (inside / "dangling.md").symlink_to(inside / "nowhere.md")
    assert find_sources(inside) == []


def test_a_folder_that_is_none_is_the_callers_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere.*not a folder"):
        find_sources(tmp_path / "nowhere")


@pytest.mark.parametrize("markup", ["<!--", "<?", "</", "<a ", '<a b="', "<title>", "<div>"])
def test_html_that_never_closes_is_read_in_linear_time(tmp_path: Path, markup: str) -> None:
    (tmp_path / "page.html").write_text("<p>Seen.</p>" + markup * 50_000)
    documents, _ = read(tmp_path)
    assert documents["page.html"].text.startswith("Seen.")
