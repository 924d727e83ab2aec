"""Whose data folder it is: one runtime at a time, and none that is dead."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.doubles.places import Places
from tests.doubles.processes import python
from tests.doubles.shapes import host

from retinue.host.presence import Presence, RuntimeInfo, find_runtime, roams, runtime_of
from retinue.host.settings import Settings
from retinue.runs.errors import StoreBusy
from retinue.store.liveness import boot_id, current_owner, owner_of

CLAIM = """
import os, pathlib, sys, threading
from retinue.host.presence import Presence, RuntimeInfo
from retinue.store.liveness import boot_id, current_owner, owner_of
me = current_owner()
presence = Presence(pathlib.Path(sys.argv[1]))
presence.claim(RuntimeInfo("10.0.0.7:6379", "space", me.pid, me.started, boot_id(), "node-7"))
print("claimed", flush=True)
threading.Event().wait(60)
"""


def info() -> RuntimeInfo:
    me = current_owner()
    return RuntimeInfo("here:1", "space", me.pid, me.started, boot_id(), "node-1")


async def test_a_live_runtime_is_found_and_a_second_one_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.host.presence._PATIENCE", 0.2)
    assert find_runtime(tmp_path) is None
    with python(CLAIM, tmp_path) as other:
        await asyncio.to_thread(other.wait_for, "claimed")
        found = find_runtime(tmp_path)
        assert found is not None and (found.pid, found.address) == (other.process.pid, "10.0.0.7:6379")
        with pytest.raises(StoreBusy, match=rf"pid {other.process.pid} on node-7, Ray at .*6379.*retinue down"):
            await asyncio.to_thread(Presence(tmp_path).claim, info())
        other.kill()
        assert find_runtime(tmp_path) is None
        Presence(tmp_path).claim(info())


async def test_a_runtime_is_found_while_its_ray_lives_to_bring_the_supervisor_back(tmp_path: Path) -> None:
    with python("import time; print('head', flush=True); time.sleep(60)") as head:
        await asyncio.to_thread(head.wait_for, "head")
        ray = owner_of(head.process.pid)
        crashed = replace(info(), pid=2**22 + 1, head_pid=ray.pid, head_started=ray.started)
        Presence(tmp_path).claim(crashed)
        assert find_runtime(tmp_path) == crashed
        head.kill()
    assert find_runtime(tmp_path) is None


def test_a_folder_that_was_left_is_free_and_names_nobody(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "new")
    presence.claim(info())
    presence.leave()
    presence.leave()
    assert find_runtime(tmp_path / "new") is None


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]"])
def test_a_damaged_claim_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / "runtime.lock").write_text(text)
    assert find_runtime(tmp_path) is None
    assert os.path.exists(tmp_path / "runtime.lock")


@pytest.mark.promise("B3", "K2")
async def test_the_runtime_of_a_shared_store_is_found_by_the_hosts_that_show_themselves_in_it(
    tmp_path: Path, places: Places
) -> None:
    with places.new("postgres") as place:
        settings = Settings(folder=tmp_path, store=place.url, cluster="10.0.0.7:6379")
        assert runtime_of(settings) is None, "nobody has opened the store"
        store = place.open()
        await store.register(replace(host("inline"), kind="inline"))
        assert runtime_of(settings) is None, "a host in somebody's terminal is no runtime"
        await store.register(replace(host("run"), kind="run", node="node-7"))
        found = await asyncio.to_thread(runtime_of, settings)
        assert found is not None and (found.address, found.node) == ("10.0.0.7:6379", "node-7")
        unnamed = runtime_of(settings.model_copy(update={"cluster": None}))
        assert unnamed is not None and unnamed.address == ""
        await store.retire("run")
        assert runtime_of(settings) is None
        await store.close()


def test_only_a_shared_store_on_a_named_cluster_frees_a_runtime_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shared = "postgresql://ana@db/retinue"
    assert roams(Settings(folder=tmp_path, store=shared, cluster="10.0.0.7:6379"))
    assert not roams(Settings(folder=tmp_path, store=shared))
    assert not roams(Settings(folder=tmp_path, cluster="10.0.0.7:6379"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert roams(Settings(folder=tmp_path, store=shared))
