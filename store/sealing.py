"""Sealing of content: a key per tenant, AES-GCM, and addresses that only the tenant's key can compute.

Owns the keys and what is done with them. Losing a tenant's key is erasing the tenant's content; no
key is ever shared between tenants, so equal content of two tenants has two addresses. That a key was destroyed is
remembered: what a later key does not open was erased, not damaged. Knows no entries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retinue.runs.errors import StoreError

_NONCE = 12
KEY_BYTES = 32
_MARK = 8
_PREFIX = 7
"""Random bytes of a nonce, drawn once per process; the rest counts, so that none repeats under a key."""
OLDEST = 30.0
"""Seconds after which a process looks again whether the keys that it has in hand are still there."""


@dataclass(frozen=True, slots=True)
class TenantKey:
    """What one tenant's content is sealed and addressed with. Content of a key that followed a destroyed one begins
    with its `mark`, which tells it from what was erased; there is none where no key was ever destroyed.
    """

    cipher: AESGCM
    address_key: bytes
    mark: bytes = b""


class Keys(Protocol):
    """Where the tenants' keys are, as text for messages. Blocking; safe for many processes."""

    def load(self, tenant_id: str) -> bytes | None:
        """A tenant's key; None when there is none."""
        ...

    def create(self, tenant_id: str) -> bytes:
        """The key that is made now, or was made by another process at the same moment; durable."""
        ...

    def destroy(self, tenant_id: str) -> bool:
        """Make the key unreadable for ever, and remember that there was one. False when there was none."""
        ...

    def erased(self, tenant_id: str) -> bool:
        """Whether a key of the tenant was destroyed, ever."""
        ...

    def remember(self, tenant_id: str) -> None:
        """A key of the tenant was destroyed here or in the place that this is a copy of; durable."""
        ...

    def tenants(self) -> Iterator[str]:
        """Whose keys there are, or were until they were destroyed."""
        ...

    def keep(self, tenant_id: str, key: bytes) -> bytes:
        """The key that the tenant has from now on: this one of another place, or the one it had; durable."""
        ...


class Vault:
    """Seals, opens and addresses content by tenant. Thread-safe; keys are kept in hand, and looked for again by
    `refresh`, which their users call when they are `stale`.

    `seal` makes a tenant's key when there is none. `open` returns None when the key was destroyed, whether or not the
    tenant has another one since, and raises StoreError when the key is there but the bytes are not what was sealed.
    """

    def __init__(self, keys: Keys) -> None:
        self._store = keys
        self._keys: dict[str, TenantKey] = {}
        self._changed = False
        self._looked = time.monotonic()
        self._prefix = os.urandom(_PREFIX)
        self._numbers = count()

    def seal(self, tenant_id: str, plain: bytes, bound_to: bytes = b"") -> bytes:
        """Nonce and ciphertext; `bound_to` must be given again to open."""
        nonce = self._prefix + next(self._numbers).to_bytes(_NONCE - _PREFIX, "big")
        key = self._key(tenant_id)
        return key.mark + nonce + key.cipher.encrypt(nonce, plain, bound_to)

    def open(self, tenant_id: str, sealed: bytes, bound_to: bytes = b"") -> bytes | None:
        """The plain bytes, or None when the tenant's key is gone."""
        key = self._keys.get(tenant_id) or self._load(tenant_id)
        if key is None:
            return None
        plain = _opened(key, sealed, bound_to)
        return plain if plain is not None else self._opened_anew(tenant_id, key, sealed, bound_to)

    def address(self, tenant_id: str, plain: bytes) -> bytes:
        """A 20-byte keyed hash: the same for equal content of the tenant, meaningless to anyone else."""
        return blake2b(plain, digest_size=20, key=self._key(tenant_id).address_key).digest()

    def destroy(self, tenant_id: str) -> bool:
        """Erase the tenant's content everywhere by destroying its key. False when there was none."""
        self._changed = self._keys.pop(tenant_id, None) is not None or self._changed
        return self._store.destroy(tenant_id)

    def tenants(self) -> list[str]:
        """Whose keys there are, or were until they were destroyed. Blocking."""
        return list(self._store.tenants())

    def erased(self, tenant_id: str) -> bool:
        """Whether a tenant has no key any more, because it was destroyed. Blocking."""
        return self._store.load(tenant_id) is None and self._store.erased(tenant_id)

    def knows(self, tenant_id: str) -> bool:
        """Whether a tenant's key is in hand, so that sealing waits for nothing."""
        return tenant_id in self._keys

    def prepare(self, tenant_id: str, make: bool) -> None:
        """Take a tenant's key in hand; when there is none it may be made. Blocking."""
        if make:
            self._key(tenant_id)
        else:
            self._load(tenant_id)

    @property
    def stale(self) -> bool:
        """Whether another process may have destroyed a key that is in hand, a while ago."""
        return self._changed or (bool(self._keys) and time.monotonic() - self._looked >= OLDEST)

    def refresh(self) -> bool:
        """Let go of keys that were destroyed; True when there were any. Blocking; one small read for each key."""
        self._looked = time.monotonic()
        changed, self._changed = self._changed, False
        for tenant_id, known in list(self._keys.items()):
            raw = self._store.load(tenant_id)
            if raw is not None and _derive(raw, bool(known.mark)).address_key == known.address_key:
                continue
            changed = True
            if raw is None:
                self._keys.pop(tenant_id, None)
            else:
                self._keep(tenant_id, raw)
        return changed

    def _opened_anew(self, tenant_id: str, key: TenantKey, sealed: bytes, bound_to: bytes) -> bytes | None:
        """What the key in hand does not open: with the key that the tenant has now; None when it was erased."""
        raw = self._store.load(tenant_id)
        if raw is None:
            self._changed = True
            return None
        now = self._derived(tenant_id, raw)
        if now != key:
            self._changed = True
            plain = _opened(now, sealed, bound_to)
            if plain is not None:
                return plain
        if now.mark and not sealed.startswith(now.mark):
            return None
        raise StoreError(
            f"content of tenant {tenant_id!r} does not open with its key: the store or {self._store} "
            "was changed from outside; restore both from the same backup"
        )

    def _key(self, tenant_id: str) -> TenantKey:
        known = self._keys.get(tenant_id) or self._load(tenant_id)
        return known or self._keep(tenant_id, self._store.create(tenant_id))

    def _load(self, tenant_id: str) -> TenantKey | None:
        raw = self._store.load(tenant_id)
        return None if raw is None else self._keep(tenant_id, raw)

    def _keep(self, tenant_id: str, raw: bytes) -> TenantKey:
        key = self._keys[tenant_id] = self._derived(tenant_id, raw)
        return key

    def _derived(self, tenant_id: str, raw: bytes) -> TenantKey:
        return _derive(raw, self._store.erased(tenant_id))


_LONGEST = 180
"""Characters of a file's name; a tenant with a longer one has the name in a file of its own beside the key."""


class KeyFolder:
    """Keys as files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def load(self, tenant_id: str) -> bytes | None:
        """See Keys."""
        try:
            raw = self._path(tenant_id).read_bytes()
        except FileNotFoundError:
            return None
        if len(raw) != KEY_BYTES:
            raise StoreError(
                f"{self._path(tenant_id)} holds {len(raw)} bytes, not {KEY_BYTES}: restore the key from a backup"
            )
        return raw

    def create(self, tenant_id: str) -> bytes:
        """See Keys."""
        return self.keep(tenant_id, os.urandom(KEY_BYTES))

    def erased(self, tenant_id: str) -> bool:
        """See Keys."""
        return self._path(tenant_id).with_suffix(_DESTROYED).exists()

    def remember(self, tenant_id: str) -> None:
        """See Keys."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(tenant_id)
        self._name(path, tenant_id)
        _write(_draft_of(path), b"").replace(path.with_suffix(_DESTROYED))
        sync_folder(self._folder)

    def tenants(self) -> Iterator[str]:
        """See Keys."""
        found = {path.with_suffix(".key") for kind in (".key", _DESTROYED) for path in self._folder.glob(f"*{kind}")}
        return map(_tenant_of, sorted(found))

    def keep(self, tenant_id: str, key: bytes) -> bytes:
        """See Keys."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(tenant_id)
        self._name(path, tenant_id)
        draft = _write(_draft_of(path), key)
        try:
            os.link(draft, path)
        except FileExistsError:
            made = self.load(tenant_id)
        else:
            sync_folder(self._folder)
            made = self.load(tenant_id)
        draft.unlink()
        if made is None:
            raise StoreError(f"the key of tenant {tenant_id!r} vanished from {self} while it was made")
        return made

    def destroy(self, tenant_id: str) -> bool:
        """See Keys."""
        path = self._path(tenant_id)
        if not path.exists():
            return False
        self.remember(tenant_id)
        with path.open("r+b") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        return True

    def _name(self, path: Path, tenant_id: str) -> None:
        if path.name.startswith(_HASHED):
            _write(_draft_of(path), tenant_id.encode("utf-8", "surrogatepass")).replace(path.with_suffix(_NAME))

    def _path(self, tenant_id: str) -> Path:
        name = quote(tenant_id, safe="", errors="surrogatepass")
        if len(name) > _LONGEST:
            name = _HASHED + blake2b(name.encode(), digest_size=32).hexdigest()
        return self._folder / f"{name}.key"


_HASHED, _NAME, _DESTROYED = "%~", ".tenant", ".erased"
"""No quoted name begins like the first; the second ends the name of the file with a long one, the third that of the
file which says that a key was destroyed."""


def _tenant_of(path: Path) -> str:
    if path.name.startswith(_HASHED):
        return path.with_suffix(_NAME).read_bytes().decode("utf-8", "surrogatepass")
    return unquote(path.stem, errors="surrogatepass")


def _draft_of(path: Path) -> Path:
    return path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}")


def _write(draft: Path, content: bytes) -> Path:
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


@lru_cache(maxsize=1024)
def _derive(raw: bytes, marked: bool) -> TenantKey:
    sealing = blake2b(raw, digest_size=32, person=b"retinue-seal").digest()
    address = blake2b(raw, digest_size=32, person=b"retinue-address").digest()
    mark = blake2b(raw, digest_size=_MARK, person=b"retinue-mark").digest() if marked else b""
    return TenantKey(AESGCM(sealing), address, mark)


def _opened(key: TenantKey, sealed: bytes, bound_to: bytes) -> bytes | None:
    """The plain bytes of what this key has sealed, before or since another one was destroyed; None of anything else."""
    begins = len(key.mark) if sealed.startswith(key.mark) else 0
    try:
        return key.cipher.decrypt(sealed[begins : begins + _NONCE], sealed[begins + _NONCE :], bound_to)
    except InvalidTag:
        return None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync does for a file's bytes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
