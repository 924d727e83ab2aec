"""What no text of the project may hold: the address of a package registry, or a note to do it later.

The forbidden words are put together here, so that this file does not hold them either.
"""

from __future__ import annotations

import re

REGISTRIES = [
    ("pypi", "org"),
    ("pypi", "python", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "com"),
    ("npmjs", "org"),
    ("yarnpkg", "com"),
    ("deb", "debian", "org"),
    ("security", "debian", "org"),
    ("archive", "ubuntu", "com"),
    ("conda", "anaconda", "org"),
    ("crates", "io"),
    ("proxy", "golang", "org"),
]


def test_no_file_names_a_package_registry(texts: dict[str, str]) -> None:
    pattern = re.compile("|".join(re.escape(".".join(host)) for host in REGISTRIES))
    assert "pyproject.toml" in texts
    assert [f"{name}: {hit[0]}" for name, text in texts.items() if (hit := pattern.search(text))] == []


def test_the_lock_names_no_place_to_fetch_from(texts: dict[str, str]) -> None:
    lines = texts["requirements.lock"].splitlines()
    assert [line for line in lines if "://" in line or line.startswith(("-", "#"))] == []
