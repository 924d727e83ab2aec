"""The corpus builder, run as a script on a small data file of the package's shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from examples.research import score

BUILDER = Path(score.__file__).with_name("build_corpus.py")
BROWSERS = {"chrome": "Chrome", "edge": "Edge", "firefox": "Firefox", "safari": "Safari", "deno": "Deno"}


def make_feature(number: int, **flaws: Any) -> dict[str, Any]:
    """A feature that each browser got in another release; `flaws` change Safari's statement."""
    support: dict[str, Any] = {
        browser: {"version_added": str(number % 20 + place + 1)} for place, browser in enumerate(BROWSERS)
    }
    support["safari"] |= flaws
    about = {"support": support, "spec_url": f"https://spec.example/#f{number}", "tags": [f"web-features:f{number}"]}
    return {"__compat": about | {"status": {"standard_track": True, "deprecated": False, "experimental": False}}}


def make_package(folder: Path) -> Path:
    releases = {
        str(n): {"release_date": f"{2015 + n // 4}-{n % 4 * 3 + 1:02}-0{n % 9 + 1}", "status": "retired"}
        for n in range(1, 40)
    }
    properties = {f"prop-{number}": make_feature(number) for number in range(20)}
    properties["prop-3"]["part"] = make_feature(5) | {}
    properties["prop-3"]["part"]["__compat"]["description"] = "Works in <code>grid</code> layout"
    properties["half"] = make_feature(3, partial_implementation=True)
    tree: dict[str, Any] = {"__meta": {"version": "1.2.3"}, "css": {"properties": properties}}
    tree["css"] |= {"selectors": {}, "at-rules": {}, "types": {}}
    tree |= {"javascript": {"builtins": {}}, "http": {"headers": {}}, "api": {}}
    tree["html"] = {"elements": {}, "global_attributes": {}}
    tree["browsers"] = {key: {"name": name, "releases": releases} for key, name in BROWSERS.items()}
    (folder / "data.json").write_text(json.dumps(tree))
    return folder


def build(package: Path, output: Path) -> dict[str, bytes]:
    command = [sys.executable, "-B", str(BUILDER), "--package", str(package), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_the_same_package_gives_the_same_bytes(tmp_path: Path) -> None:
    package = make_package(tmp_path)
    first, second = build(package, tmp_path / "one"), build(package / "data.json", tmp_path / "two")
    assert first == second
    assert len([name for name in first if name.endswith(".md")]) == 20 + 1
    assert b"version 1.2.3" in first["NOTICE.md"]


def test_a_page_states_every_browser_and_part(tmp_path: Path) -> None:
    page = build(make_package(tmp_path), tmp_path / "out")["documents/css/prop-3.md"].decode()
    assert page.startswith("# `prop-3` (CSS property)\n")
    assert "The earliest of the big four browsers to ship `prop-3` was Chrome, on 2016-01-05." in page
    assert page.count("`prop-3`") >= 6
    assert "| Works in `grid` layout | 6 | 7 | 8 | 9 |" in page


def test_a_feature_without_full_support_gets_no_page(tmp_path: Path) -> None:
    assert "documents/css/half.md" not in build(make_package(tmp_path), tmp_path / "out")


def test_gold_is_what_the_data_says(tmp_path: Path) -> None:
    files = build(make_package(tmp_path), tmp_path / "out")
    for line in files["gold.jsonl"].splitlines():
        row = json.loads(line)
        for document, start, end in row["gold_spans"]:
            found = files[f"documents/{document}"].decode()[start:end]
            assert found in row["answers"] or row["kind"] == "comparison"
