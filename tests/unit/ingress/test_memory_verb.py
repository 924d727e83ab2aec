"""`retinue memory list|show|forget`, on a store that holds two memories."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.ingress.conftest import Command

from retinue.ingress.exits import Exit
from retinue.runs.memories import Memory, Space
from retinue.store.sqlite import SqliteStore

pytestmark = [pytest.mark.promise("G2")]

LANGUAGE, LAMP = "a" * 32, "b" * 32


@pytest.fixture
def remembering(folder: Path) -> Path:
    """The current folder, a project whose agents remember something of two tenants."""

    async def write() -> None:
        store = SqliteStore(folder / ".retinue")
        origin = {"run_id": "r1", "step": "0/remember#0", "agent": "host", "version": "1", "principal": "ana"}
        ana, clerk = Space(scope="principal", owner="ana"), Space(scope="agent", owner="clerk")
        given = {"at": 1_000_000_000, "tags": ("taste",), **origin}
        language = Memory(memory_id=LANGUAGE, space=ana, content="French \x1b[2J please", key="language", **given)
        await store.memories.remember("acme", language)
        lamp = Memory(memory_id=LAMP, space=clerk, content={"lamp": "blue"}, at=2_000_000_000, **origin)
        await store.memories.remember("other", lamp)
        await store.close()

    asyncio.run(write())
    return folder


def test_memories_are_listed_newest_first_and_steer_no_terminal(retinue: Command, remembering: Path) -> None:
    said = retinue("memory", "list")
    first, second = said.out.splitlines()
    assert said.code == Exit.done and "\x1b" not in said.out
    assert "bbbbbbbbbbbb" in first and "agent clerk" in first and '{"lamp":"blue"}' in first
    assert "acme  principal ana" in second and "please" in second
    some = retinue("memory", "list", "--scope", "principal", "--owner", "ana", "--tenant", "acme", "--json").json
    assert [one["memory_id"] for one in some] == [LANGUAGE] and some[0]["tags"] == ["taste"]
    assert retinue("memory", "list", "--owner", "nobody").out == "nothing is remembered\n"
    assert retinue("memory", "list", "--run", "nothing").code == Exit.usage


def test_a_memory_is_shown_with_its_origin(retinue: Command, remembering: Path) -> None:
    said = retinue("memory", "show", "aaaa").out
    assert "principal ana, tenant acme" in said and "from     run r1, step 0/remember#0" in said
    assert retinue("memory", "show", LAMP, "--json").json["content"] == {"lamp": "blue"}
    unknown = retinue("memory", "show", "cccc")
    assert unknown.code == Exit.usage and "there is no memory 'cccc'" in unknown.err


def test_what_is_forgotten_has_no_content(retinue: Command, remembering: Path) -> None:
    assert "forgotten: " + LANGUAGE in retinue("memory", "forget", LANGUAGE, "--by", "ana").out
    again = retinue("memory", "forget", LANGUAGE)
    assert again.code == Exit.usage and "is forgotten already" in again.err
    assert [one["memory_id"] for one in retinue("memory", "list", "--json").json] == [LAMP]
    gone = retinue("memory", "list", "--all", "--json").json[-1]
    assert (gone["state"], gone["content"], gone["agent"]) == ("forgotten", None, "host")
    assert "content  (gone)" in retinue("memory", "show", LANGUAGE).out
