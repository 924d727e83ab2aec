"""A vault and its keys: each tenant has its own, and what it seals opens with it, at its place, or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retinue.runs.errors import StoreError
from retinue.store.sealing import KeyFolder, Vault

pytestmark = [pytest.mark.rule("R6"), pytest.mark.promise("I6")]


def test_equal_content_of_two_tenants_has_two_addresses(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    assert vault.address("acme", b"same") == vault.address("acme", b"same")
    assert vault.address("acme", b"same") != vault.address("globex", b"same")
    assert vault.address("acme", b"same") == Vault(KeyFolder(tmp_path / "keys")).address("acme", b"same")


def test_another_tenants_key_cannot_open(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    sealed = vault.seal("acme", b"secret", b"place")
    vault.seal("globex", b"anything")
    assert vault.open("acme", sealed, b"place") == b"secret"
    with pytest.raises(StoreError, match="globex"):
        vault.open("globex", sealed, b"place")
    assert vault.open("nobody", sealed, b"place") is None


def test_what_was_moved_or_changed_does_not_open(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    sealed = vault.seal("acme", b"secret", b"run:1")
    with pytest.raises(StoreError, match="changed from outside"):
        vault.open("acme", sealed, b"run:2")
    with pytest.raises(StoreError):
        vault.open("acme", sealed[:-1] + bytes([sealed[-1] ^ 1]), b"run:1")


def test_equal_content_is_never_sealed_alike(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    sealed = {vault.seal("acme", b"same") for _ in range(1_000)}
    assert len({one[:12] for one in sealed}) == len(sealed) == 1_000


def test_keys_are_private_files_with_safe_names(tmp_path: Path) -> None:
    vault = Vault(KeyFolder(tmp_path / "keys"))
    for tenant in ("acme", "../../etc/passwd", "a/b", "ü ."):
        vault.seal(tenant, b"x")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4 and {path.parent for path in files} == {tmp_path / "keys"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert len({path.read_bytes() for path in files}) == 4


async def test_processes_that_make_a_key_together_make_one(tmp_path: Path) -> None:
    vaults = [Vault(KeyFolder(tmp_path / "keys")) for _ in range(8)]
    sealed = await asyncio.gather(*(asyncio.to_thread(vault.seal, "acme", b"x") for vault in vaults))
    assert all(vault.open("acme", one) == b"x" for vault in vaults for one in sealed)
    assert len(list((tmp_path / "keys").iterdir())) == 1


def test_a_damaged_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    Vault(KeyFolder(tmp_path / "keys")).seal("acme", b"x")
    (tmp_path / "keys" / "acme.key").write_bytes(b"short")
    with pytest.raises(StoreError, match="holds 5 bytes"):
        Vault(KeyFolder(tmp_path / "keys")).seal("acme", b"x")


def test_a_tenant_whose_name_is_longer_than_a_files_has_a_key_too(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    names = ["acme", "ü" * 5_000, "~" * 5_000]
    made = {name: keys.create(name) for name in names}
    assert {name: keys.load(name) for name in keys.tenants()} == made
    assert all(keys.destroy(name) for name in names)
    assert not any(keys.destroy(name) for name in names) and sorted(keys.tenants()) == sorted(names)
    assert not any(raw in path.read_bytes() for path in tmp_path.iterdir() for raw in made.values())
