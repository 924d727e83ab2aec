"""What comes out of a sandbox has no value of a secret in it, however it is cut into parts."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.runs.sandboxes import ExecResult, FileContent
from retinue.sandbox.masking import Mask, Telling

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


def test_what_holds_no_secret_passes_at_once() -> None:
    told: list[str] = []
    telling = Telling(Mask({}), lambda stream, text: told.append(text))
    telling("stdout", b"sword")
    assert told == ["sword"]
