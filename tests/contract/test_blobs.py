"""Blobs, wherever they are kept: once for each content and tenant, closed without the key, never named before they
are there."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.doubles.s3 import S3Server, place, reach
from tests.doubles.shapes import entries_of, host, new_run, own, said

from retinue.runs.contracts import Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import ConfigError, InvalidInput, StoreError, StoreUnreachable
from retinue.store.blobs import Blobs, FolderBlobs, open_blobs
from retinue.store.objects import split_url
from retinue.store.places import open_objects
from retinue.store.sealing import KeyFolder, Vault
from retinue.store.sqlite import SqliteStore

__all__ = ["place"]
pytestmark = [pytest.mark.rule("R16"), pytest.mark.promise("K2")]
NOBODY = "s3://nobody-has-this-bucket/x"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(KeyFolder(tmp_path / "keys"))


@pytest.fixture
def blobs(place: str | None, tmp_path: Path, vault: Vault) -> Blobs:
    return FolderBlobs(tmp_path / "blobs", vault) if place is None else open_blobs(place, vault)


def files(place: str | None, tmp_path: Path) -> dict[str, str]:
    """The files that are kept, with a tag of their content."""
    url = place or f"file://{tmp_path}/blobs"
    where, prefix = split_url(url)
    return {found.path.rpartition("/")[2]: found.tag for found in open_objects(where).list(prefix)}


def test_equal_content_is_kept_once(blobs: Blobs, place: str | None, tmp_path: Path, vault: Vault) -> None:
    address = vault.address("acme", b"data").hex()
    blobs.put("acme", address, b"data")
    first = files(place, tmp_path)
    blobs.put("acme", address, b"data")
    assert list(first) == [address] and files(place, tmp_path) == first
    assert blobs.get("acme", address) == b"data"


def test_two_tenants_share_no_file_and_cannot_open_each_others(
    blobs: Blobs, place: str | None, tmp_path: Path, vault: Vault
) -> None:
    addresses = {tenant: vault.address(tenant, b"same").hex() for tenant in ("acme", "other")}
    for tenant, address in addresses.items():
        blobs.put(tenant, address, b"same")
    assert sorted(files(place, tmp_path)) == sorted(set(addresses.values())) and len(set(addresses.values())) == 2
    with pytest.raises(StoreError, match="does not open with its key"):
        blobs.get("other", addresses["acme"])


@pytest.mark.rule("R6")
def test_a_destroyed_key_leaves_nothing_to_read(blobs: Blobs, vault: Vault) -> None:
    address = vault.address("acme", b"data").hex()
    blobs.put("acme", address, b"data")
    assert vault.destroy("acme")
    assert blobs.get("acme", address) is None


def test_a_missing_blob_is_told_with_its_address(blobs: Blobs, vault: Vault) -> None:
    blobs.put("acme", vault.address("acme", b"data").hex(), b"data")
    with pytest.raises(StoreError, match=r"blob 0{40} is missing from .*: restore it") as caught:
        blobs.get("acme", "0" * 40)
    assert not isinstance(caught.value, StoreUnreachable)


def test_many_writers_of_one_content_leave_one_that_opens(
    blobs: Blobs, place: str | None, tmp_path: Path, vault: Vault
) -> None:
    content = b"much" * 100_000
    address = vault.address("acme", content).hex()
    writers = [threading.Thread(target=blobs.put, args=("acme", address, content)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert list(files(place, tmp_path)) == [address]
    assert blobs.get("acme", address) == content


def test_a_bucket_that_is_not_there_is_told_with_what_to_check(bucket: str, tmp_path: Path, vault: Vault) -> None:
    blobs = open_blobs(NOBODY, vault)
    for attempt in (lambda: blobs.put("acme", "0" * 40, b"x"), lambda: blobs.get("acme", "0" * 40)):
        with pytest.raises(StoreUnreachable, match="check that the bucket exists and AWS_ENDPOINT_URL") as caught:
            attempt()
        assert "secret-that-must-not-show" not in str(caught.value)


def test_a_server_that_is_down_is_told_within_a_bound(
    tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server()
    server.start()
    server.stop()
    reach(server, monkeypatch)
    address = vault.address("acme", b"x").hex()
    bounded(open_blobs("s3://bucket/x", vault), address, 5.0)


def test_a_server_that_never_answers_is_told_within_a_bound(
    bucket: str, tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.store.blobs.PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        bounded(open_blobs("s3://bucket/x", vault), vault.address("acme", b"x").hex(), 5.0)


def bounded(blobs: Blobs, address: str, seconds: float) -> None:
    """Both calls fail as they must, in time."""
    for attempt in (lambda: blobs.put("acme", address, b"x"), lambda: blobs.get("acme", address)):
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match="s3://bucket/x/"):
            attempt()
        assert time.monotonic() - began < seconds


def test_where_blobs_cannot_be_is_refused(tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="names no place for files: write s3://bucket/path"):
        open_blobs("https://bucket/x", vault)
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match="blobs: the environment variable NOWHERE is not set"):
        open_blobs("file:///${NOWHERE}/x", vault)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "retinue.store.s3", raising=False)
    with pytest.raises(ConfigError, match=r"s3://bucket needs the S3 client.*install retinue\[s3\]"):
        open_blobs("s3://bucket/x", vault)


# -- the store over them ---------------------------------------------------------------------------------


async def test_a_store_keeps_its_blobs_there_and_reads_them_again(place: str | None, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, blobs=place)
    await store.register(host())
    await store.submit([new_run("top", {"text": "in" * 50_000})])
    owner = await own(store, "top")
    await owner.append(said("large", "x" * 100_000))
    await store.close()
    assert len(files(place, tmp_path)) == 2
    again = SqliteStore(tmp_path, blobs=place)
    contents = [entry.content for entry in await entries_of(again, "top")]
    await again.close()
    assert {"text": "in" * 50_000} in contents and "x" * 100_000 in contents
    assert (tmp_path / "blobs").exists() == (place is None)


async def test_what_could_not_be_uploaded_is_named_by_nothing(
    bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path, blobs=f"{bucket}/blobs")
    await store.register(host())
    await store.submit([new_run("top")])
    owner = await own(store, "top")
    before = len(await entries_of(store, "top"))
    with monkeypatch.context() as broken:
        broken.setattr("retinue.store.s3.S3Objects.put", _refuse)
        with pytest.raises(StoreUnreachable, match="the upload broke off"):
            await owner.append(said("large", "x" * 100_000))
        with pytest.raises(StoreUnreachable, match="the upload broke off"):
            await store.submit([new_run("other", "y" * 100_000)])
    assert len(await entries_of(store, "top")) == before
    assert [record.run_id for record in await store.list_runs(RunQuery())] == ["top"]
    assert files(f"{bucket}/blobs", tmp_path) == {}
    await owner.append(said("large", "x" * 100_000))
    assert len(await entries_of(store, "top")) == before + 1
    await store.close()


async def test_a_run_is_not_given_up_while_its_blobs_do_not_answer(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path, blobs=f"{bucket}/blobs")
    await store.register(host())
    await store.submit([new_run("top", "x" * 100_000)])
    with monkeypatch.context() as broken:
        broken.setattr("retinue.store.s3.S3Objects.get", _refuse)
        with pytest.raises(StoreUnreachable):
            await own(store, "top")
    assert (await store.get("top")).status is Status.queued
    leased = await own(store, "top")
    assert leased.leased.input == "x" * 100_000
    await store.close()


def _refuse(self: object, path: str, *_: object) -> None:
    raise StoreUnreachable(f"{path}: the upload broke off")
