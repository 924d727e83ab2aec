"""The tool decorator: schemas from signatures, and mistakes told where the tool is defined."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from tests.unit.sessions.calling import Passage, call, gateway_of

from retinue.runs.capabilities import Caller
from retinue.runs.errors import InvalidInput, PermanentError, UnknownName
from retinue.sessions.catalog import Catalog
from retinue.sessions.native import NativeTool, tool


class Colour(enum.Enum):
    red = "red"


@dataclass
class Point:
    x: int
    y: int = 0


@tool(side_effect="read", owner="library", timeout=5)
async def search(
    query: Annotated[str, Field(description="words to look for", min_length=1)], k: int = 5
) -> list[Passage]:
    """Find passages that mention the query."""
    return [Passage(document="a", quote=query)] * k


@pytest.mark.promise("D1")
def test_a_capability_is_read_from_the_function() -> None:
    capability = search.capability
    assert (capability.name, capability.description) == ("search", "Find passages that mention the query.")
    assert (capability.side_effect, capability.owner, capability.timeout) == ("read", "library", 5)
    assert capability.input_schema == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "minLength": 1, "description": "words to look for"},
            "k": {"type": "integer", "default": 5},
        },
        "required": ["query"],
        "additionalProperties": False,
    }
    assert capability.output_schema is not None
    assert capability.output_schema["items"] == {"$ref": "#/$defs/Passage"}


async def test_the_plain_function_stays_callable() -> None:
    assert await search("x", k=1) == [Passage(document="a", quote="x")]
    assert (search.__name__, search.__doc__) == ("search", "Find passages that mention the query.")


def test_what_the_decorator_says_goes_before_the_function() -> None:
    @tool(side_effect="draft", name="notes.add", description="Add a note", version="3", stage="shadow")
    def add(text: str) -> None: ...

    capability = add.capability
    assert (capability.name, capability.description) == ("notes.add", "Add a note")
    assert (capability.version, capability.stage, capability.side_effect) == ("3", "shadow", "draft")


async def test_rich_types_travel_as_json() -> None:
    @tool(side_effect="read")
    async def echo(point: Point, colour: Colour, passages: list[Passage], kind: Literal["a", "b"] = "a") -> Point:
        assert isinstance(passages[0], Passage) and colour is Colour.red and kind == "a"
        return point

    result = await call(echo, point={"x": 1}, colour="red", passages=[{"document": "d"}])
    assert result.value == {"x": 1, "y": 0}


async def test_names_that_pydantic_uses_itself_are_ordinary_arguments() -> None:
    @tool(side_effect="read")
    async def copy(schema: str, model_config: int, json: bool, _private: str = "p") -> list[str]:
        return [schema, str(model_config), str(json), _private]

    assert list(copy.capability.input_schema["properties"]) == ["schema", "model_config", "json", "_private"]
    assert (await call(copy, schema="s", model_config=1, json=True)).value == ["s", "1", "True", "p"]


async def test_key_and_caller_are_given_and_not_shown() -> None:
    @tool(side_effect="write", idempotency="idempotent")
    def put(name: str, *, key: str, who: Caller) -> str:
        return f"{name} {key} {who.tenant_id}"

    assert list(put.capability.input_schema["properties"]) == ["name"]
    assert (await call(put, name="n")).value == "n k1 acme"


def test_a_key_that_is_not_keyword_only_is_an_argument() -> None:
    @tool(side_effect="read")
    def get(key: str) -> str:
        return key

    assert get.capability.input_schema["required"] == ["key"]


def no_type(query) -> str: ...  # type: ignore[no-untyped-def]
def no_return(query: str): ...  # type: ignore[no-untyped-def]
def many(*queries: str) -> str: ...
def keywords(**queries: str) -> str: ...
def positional(query: str, /) -> str: ...
def bad_default(k: int = "five") -> str: ...  # type: ignore[assignment]
def none_default(k: int = None) -> str: ...  # type: ignore[assignment]  # noqa: RUF013
def field_default(k: int = Field(default=3)) -> str: ...
def odd_argument(where: Callable[[], int]) -> str: ...
def bad_key(*, key: int) -> str: ...
def unknown_type(query: Missing) -> str: ...  # type: ignore[name-defined]  # noqa: F821
def fine(query: str) -> str: ...
def nothing(query: str) -> None: ...
def keyed(key: str) -> str: ...
def stranger(ticket: str) -> str | None: ...
def asks(key: str) -> str | None: ...


def generates() -> Iterator[str]:
    yield ""


async def streams() -> AsyncIterator[str]:
    yield ""


READ = {"side_effect": "read"}
RECONCILABLE = {"side_effect": "write", "idempotency": "reconcilable"}


@pytest.mark.parametrize(
    ("function", "contract", "words"),
    [
        (no_type, READ, "parameter 'query' has no type"),
        (no_return, READ, "no return type"),
        (many, READ, r"parameter '\*queries' takes any number"),
        (keywords, READ, r"parameter '\*\*queries' takes any number"),
        (positional, READ, "positional only"),
        (bad_default, READ, "default of 'k' is 'five'"),
        (none_default, READ, "default of 'k' is None.*int | None"),
        (field_default, READ, "Annotated"),
        (odd_argument, READ, "an argument's type has no JSON form"),
        (bad_key, READ, "'key' receives the idempotency key and is not a str"),
        (unknown_type, READ, "type hints cannot be read"),
        (generates, READ, "Return a list"),
        (streams, READ, "Return a list"),
        (len, READ, "no plain function"),
        (fine, {}, "side_effect is None"),
        (fine, {"side_effect": "wirte"}, "side_effect is 'wirte'"),
        (fine, {"side_efect": "read"}, "Did you mean 'side_effect'"),
        (fine, {"side_effect": "write"}, "names no idempotency"),
        (fine, {"side_effect": "read", "idempotency": "idempotent"}, "idempotency on a read"),
        (fine, {"side_effect": "write", "idempotency": "often"}, "idempotency is 'often'"),
        (fine, {"side_effect": "read", "timeout": 0}, "timeout is 0"),
        (fine, {"side_effect": "read", "stage": "stopped"}, "stage is 'stopped'"),
        (fine, {"side_effect": "read", "name": "a b"}, "name is 'a b'"),
        (fine, RECONCILABLE, "has no probe"),
        (fine, {"side_effect": "write", "idempotency": "idempotent", "probe": asks}, "is not reconcilable"),
        (fine, {**RECONCILABLE, "probe": 5}, "probe is 5"),
        (fine, {**RECONCILABLE, "probe": stranger}, "takes 'ticket', which the tool does not"),
        (nothing, {**RECONCILABLE, "probe": asks}, "it returns None"),
        (keyed, {**RECONCILABLE, "probe": asks}, "Rename that argument"),
    ],
)
def test_a_wrong_definition_names_the_function_and_the_remedy(
    function: Callable[..., Any], contract: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        tool(**contract)(function)
    assert str(refused.value).startswith(f"tool {function.__module__}.{function.__qualname__}: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "argument 'query' is missing"),
        ({"query": "x", "k": "5"}, "argument 'k' is '5': Input should be a valid integer"),
        ({"query": "x", "k": 2.5}, "argument 'k' is 2.5"),
        ({"query": None}, "argument 'query' is None"),
        ({"query": ""}, "at least 1 character"),
        ({"qurey": "x"}, "no argument 'qurey' .did you mean 'query'"),
        ({"query": "x" * 3, "k": float("nan")}, "argument 'k' is nan"),
        ([], "the arguments are .*: Input should be an object"),
        ({"query": "\ud800"}, "not JSON"),
        ({"query": object()}, "not JSON"),
    ],
)
def test_wrong_arguments_name_field_value_and_what_is_taken(arguments: Any, words: str) -> None:
    with pytest.raises(PermanentError, match=words) as refused:
        gateway_of(search).prepare("search", arguments)
    assert refused.value.code == "invalid_arguments"


def test_many_mistakes_are_told_in_bounds() -> None:
    with pytest.raises(PermanentError, match="and 45 more") as refused:
        gateway_of(search).prepare("search", {"query": "x" * 10_000, **{f"a{n}": n for n in range(50)}})
    assert len(str(refused.value)) < 600


def test_endless_arguments_are_refused() -> None:
    circle: dict[str, Any] = {"query": "x"}
    circle["k"] = circle
    with pytest.raises(PermanentError, match="not JSON"):
        gateway_of(search).prepare("search", circle)


def test_infinite_numbers_in_free_form_arguments_are_refused() -> None:
    @tool(side_effect="read")
    def keep(anything: dict[str, Any]) -> None: ...

    with pytest.raises(PermanentError, match="not JSON"):
        gateway_of(keep).prepare("keep", {"anything": {"x": float("inf")}})


def test_defaults_are_filled_in_and_part_of_the_digest() -> None:
    gateway = gateway_of(search)
    short, long = gateway.prepare("search", {"query": "x"}), gateway.prepare("search", {"k": 5, "query": "x"})
    assert short.arguments == {"query": "x", "k": 5}
    assert short.digest == long.digest
    assert short.digest != gateway.prepare("search", {"query": "x", "k": 4}).digest


def test_the_digest_holds_name_and_version() -> None:
    def define(**contract: Any) -> NativeTool[..., Any]:
        return tool(side_effect="read", **contract)(fine)

    tools = [define(name="a"), define(name="b"), define(name="a", version="2")]
    digests = {gateway_of(each).prepare(each.capability.name, {"query": "x"}).digest for each in tools}
    assert len(digests) == 3


@pytest.mark.promise("D1")
def test_the_catalog_refuses_two_of_one_name_and_names_both() -> None:
    other = tool(side_effect="read", name="search")(fine)
    with pytest.raises(InvalidInput, match=r"test_native\.search and .*test_native\.fine"):
        Catalog([search, other])
    assert len(Catalog([search, search])) == 1


def test_the_catalog_lists_and_finds() -> None:
    catalog = Catalog([search, tool(side_effect="read", name="add")(fine)])
    assert [capability.name for capability in catalog.capabilities] == ["add", "search"]
    assert "search" in catalog and next(iter(catalog)) is search
    with pytest.raises(UnknownName, match=r"'serch'\. Did you mean 'search'"):
        gateway_of(search).capability("serch")
    with pytest.raises(UnknownName, match="Known: none"):
        Catalog([]).get("x")
