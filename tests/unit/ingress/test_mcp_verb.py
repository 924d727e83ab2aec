"""What `retinue mcp` refuses to serve, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (("--http", "0.0.0.0:0"), {}, "it asks for no token"),
        (("--http", "127.0.0.1:0", "--token-from", "FACE_TOKEN"), {}, "FACE_TOKEN is not set"),
        (("--http", "127.0.0.1:0", "--token-from", "FACE_TOKEN"), {"FACE_TOKEN": "t00 short"}, "shorter than 16"),
        (("--token-from", "FACE_TOKEN"), {"FACE_TOKEN": "t" * 20}, "go with --http"),
        (("--allow-host", "a.example"), {}, "go with --http"),
        (("--state-key", "secret"), {}, "must name a variable of the environment"),
        (("--state-key", "${FACE_KEY}"), {"FACE_KEY": "t00 short"}, "holds 9 characters"),
        (("--state-key", "${FACE_KEY}"), {}, "holds 0 characters"),
        (("--project", "elsewhere"), {}, "does not exist"),
    ],
)
def test_what_cannot_be_served_is_told(
    retinue: Command,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    environ: dict[str, str],
    said: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    heard = retinue("mcp", *words)
    assert heard.code == Exit.usage
    assert said in heard.err
    assert not any(value in heard.out + heard.err for value in environ.values())
    assert not (folder / ".retinue").exists()
