"""What a tool returned: of its declared type, within its cap, and kept as a whole where it is not."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import to_json
from tests.unit.sessions.calling import Passage, call

from retinue.runs.capabilities import Whole
from retinue.runs.errors import PermanentError
from retinue.sessions.native import tool


class Flat(BaseModel):
    x: int
    hidden: str = Field(default="", exclude=True)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (int, "5", "the result is '5': Input should be a valid integer"),
        (list[Passage], [Passage(document="a"), {"document": 5}], r"1\.document is 5: Input should be a valid string"),
        (Flat, Flat.model_construct(x="five"), "no JSON form.*five"),
        (None, 5, "the result is 5"),
        (dict[str, Any], {"a": object()}, "no JSON form"),
        (bytes, b"\xff", "no JSON form"),
    ],
)
async def test_a_result_of_the_wrong_type_is_refused(hint: Any, value: Any, words: str) -> None:
    def wrong():  # type: ignore[no-untyped-def]
        return value

    wrong.__annotations__["return"] = hint
    with pytest.raises(PermanentError, match=words) as raised:
        await call(tool(side_effect="read")(wrong))
    assert raised.value.code == "invalid_output"
    assert "The call was made" not in str(raised.value)
    with pytest.raises(PermanentError, match="The call was made: its effect has happened"):
        await call(tool(side_effect="write", idempotency="idempotent")(wrong))


async def test_a_result_within_the_cap_is_whole() -> None:
    @tool(side_effect="read", max_bytes=12)
    def text() -> str:
        return "é" * 5

    result = await call(text)
    assert (result.value, result.size, result.cut) == ("é" * 5, 12, False)


@pytest.mark.parametrize("text", ["x" * 50_000_000, "é" * 900, '"\n' * 700, "😀" * 400])
async def test_a_long_text_is_cut_with_a_notice(text: str) -> None:
    @tool(side_effect="read", max_bytes=1_000)
    async def read() -> str:
        return text

    result = await call(read)
    assert result.cut and 900 <= result.size <= 1_000
    kept, notice = result.value.split("\n[cut: ")
    assert text.startswith(kept)
    assert notice == f"the first part of {len(text):,} characters; the cap is 1,000 bytes]"


async def test_a_list_out_of_all_measure_keeps_its_first_whole_items_and_validates_no_more() -> None:
    read = []
    Counted = Annotated[str, AfterValidator(lambda item: read.append(1) or item)]

    def words() -> list[Counted]:  # type: ignore[valid-type]
        return ["word" * 25] * 1_000_000

    words.__annotations__["return"] = list[Counted]
    result = await call(tool(side_effect="write", idempotency="idempotent", max_bytes=1_000)(words))
    assert result.cut and result.value == ["word" * 25] * len(result.value)
    assert 890 <= result.size <= 1_000
    assert len(read) < 1_000
    assert result.full is None


async def test_what_the_cap_cuts_or_refuses_is_kept_as_a_whole() -> None:
    @tool(side_effect="read", max_bytes=100)
    async def read(what: str) -> Any:
        return {"list": list(range(1_000)), "object": {"a": "x" * 1_000}}[what]

    result = await call(read, what="list")
    assert result.cut and result.full is not None and result.full.value == list(range(1_000))
    text = to_json(result.full.value)
    assert (result.full.size, result.full.sha256) == (len(text), sha256(text).hexdigest())
    with pytest.raises(PermanentError, match="its cap is 100") as raised:
        await call(read, what="object")
    assert raised.value.code == "too_large"
    assert isinstance(raised.value.full, Whole) and raised.value.full.value == {"a": "x" * 1_000}


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"a": "x" * 70_000_000}, "at least 70,000,00"),
        ({"a": "x" * 5_000_000}, "returned 5,000,008"),
        ({"a": ["\n" * 400]}, "81"),
        (["x" * 2_000], "returned 2,004"),
        (Flat(x=10**600), "returned 60"),
    ],
)
async def test_what_cannot_be_cut_is_too_large(value: Any, size: str) -> None:
    @tool(side_effect="read", max_bytes=500)
    async def big() -> Any:
        return value

    with pytest.raises(PermanentError, match=r"its cap is 500\. Return less, or raise max_bytes") as raised:
        await call(big)
    assert raised.value.code == "too_large"
    assert size in str(raised.value)


async def test_what_a_model_keeps_to_itself_does_not_count() -> None:
    @tool(side_effect="read", max_bytes=100)
    async def flat() -> Flat:
        return Flat(x=1, hidden="x" * 1_000)

    assert (await call(flat)).value == {"x": 1}


async def test_a_long_list_is_read_in_parts_and_judged_as_a_whole() -> None:
    found: list[Any] = [Passage(document=f"d{n}") for n in range(2_500)]

    @tool(side_effect="read")
    async def search() -> list[Passage]:
        """Find passages."""
        return found

    result = await call(search)
    assert result.value == [{"document": f"d{n}", "quote": ""} for n in range(2_500)]
    assert result.size == len(to_json(result.value))
    found[1_700] = {"document": "d", "quote": 7}
    with pytest.raises(PermanentError, match=r"1700.quote is 7"):
        await call(search)
