"""What comes out of a sandbox has no value of a secret in it, however it is cut into parts."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.runs.sandboxes import ExecResult, FileContent
from retinue.sandbox.backends.streams import Excerpt
from retinue.sandbox.masking import Mask, Telling
from retinue.sandbox.workspaces import Workspace

pytestmark = pytest.mark.promise("E4")

SECRETS = {"TOKEN": "swordfish", "LONGER": "swordfish-and-chips", "PIN": "1234"}
MASK = Mask(SECRETS)


def test_names_stand_where_values_were() -> None:
    done = MASK.result(ExecResult(exit_code=0, stdout="a swordfish-and-chips b", stderr="swordfishes 1234"))
    assert (done.stdout, done.stderr) == ("a [LONGER] b", "[TOKEN]es 1234")
    assert MASK.content(FileContent(path="a", size=9, text="swordfish")).text == "[TOKEN]"
    data = b64encode(b"\xff swordfish").decode()
    assert b64decode(MASK.content(FileContent(path="a", size=9, data=data)).data or "") == b"\xff [TOKEN]"


@given(st.lists(st.sampled_from(["swordfish", "swordfish-and-chips", "sword", "fish", "s", "ö", " "])), st.data())
def test_streams_are_masked_however_they_come(words: list[str], data: st.DataObject) -> None:
    whole = "".join(words).encode()
    told: list[str] = []
    telling = Telling(MASK, lambda stream, text: told.append(text))
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        telling("stdout", whole[:cut])
        whole = whole[cut:]
    telling.end()
    assert "swordfish" not in "".join(told)
    assert "".join(told).replace("[TOKEN]", "swordfish").replace("[LONGER]", "swordfish-and-chips") == "".join(words)


@pytest.mark.parametrize("bound", range(1, 60))
def test_no_part_of_a_value_stays_where_output_is_cut(bound: int) -> None:
    kept = Excerpt(bound)
    kept.add(b"0123456789swordfish-and-chips9876543210" * 2)
    said = MASK.result(ExecResult(exit_code=0, stdout=kept.text())).stdout
    assert not any("swordfish-and-chips"[at : at + 3] in said for at in range(17))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("limit", range(5, 40))
def test_a_file_that_is_read_in_parts_shows_none_and_misses_nothing_else(
    tmp_path: Path, limit: int, binary: bool
) -> None:
    content = b"0123456789swordfish9876543210swordfish-and-chips0123" + b"\xff" * binary
    (tmp_path / "a").write_bytes(content)
    found, offset = b"", 0
    while True:
        part = MASK.content(Workspace(tmp_path).read("a", offset, limit))
        found += b64decode(part.data) if part.data is not None else (part.text or "").encode()
        if part.next_offset is None:
            break
        offset = part.next_offset
    assert not any(b"swordfish-and-chips"[at : at + 3] in found for at in range(17))
    plain = found.replace(b"[TOKEN]", b"").replace(b"[LONGER]", b"")
    assert plain.startswith(b"0123456789") and b"9876543210" in plain and plain.endswith(content[-4:])
    assert len(plain) < 10 + 10 + 5 + 8


def test_what_holds_no_secret_passes_at_once() -> None:
    told: list[str] = []
    telling = Telling(Mask({}), lambda stream, text: told.append(text))
    telling("stdout", b"sword")
    assert told == ["sword"]
