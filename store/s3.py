"""Files in an S3 bucket, or in any store that speaks its protocol. The only module that imports obstore.

Endpoint, region and credentials are read by obstore from AWS_... of the process's environment. Knows neither blobs
nor rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import S3Store

from retinue.runs.errors import InvalidInput, StoreUnreachable
from retinue.store.objects import AHEAD, Found, ranged

if TYPE_CHECKING:
    from obstore import ObjectMeta

_CONNECT = 3.0
_WHOLE = 120.0
_RETRIES = 2
_PART = 8 * 1024 * 1024
_PARTS_AT_ONCE = 4
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SAID = 240


class S3Objects:
    """Implements `Objects` over a bucket. A request that is silent for `patience` seconds is tried at most two times
    more, within as long again; then StoreUnreachable is raised.
    """

    def __init__(self, bucket: str, patience: float) -> None:
        self.place = f"s3://{bucket}"
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
        try:
            self._store = S3Store(
                bucket,
                client_options={
                    "connect_timeout": timedelta(seconds=min(_CONNECT, patience)),
                    "read_timeout": timedelta(seconds=patience),
                    "timeout": timedelta(seconds=max(_WHOLE, patience)),
                    "allow_http": endpoint.startswith("http://"),
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=patience)},
            )
        except (BaseError, ValueError) as error:
            raise self._failed("", error) from None

    def put(self, path: str, content: bytes) -> None:
        """See Objects."""
        with self._told(path):
            obstore.put(self._store, path, content)

    def upload(self, path: str, file: Path) -> None:
        """See Objects. A large file goes up in parts and appears when the last one is there."""
        with self._told(path), file.open("rb") as source:
            obstore.put(self._store, path, source, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def get(self, path: str) -> bytes | None:
        """See Objects."""
        try:
            with self._told(path):
                return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            return None

    def head(self, path: str) -> Found | None:
        """See Objects."""
        try:
            with self._told(path):
                meta = obstore.head(self._store, path)
        except FileNotFoundError:
            return None
        return _found(meta)

    def list(self, folder: str) -> Iterator[Found]:
        """See Objects."""
        with self._told(folder):
            for page in obstore.list(self._store, folder or None, chunk_size=1_000):
                for meta in page:
                    yield _found(meta)

    def open(self, found: Found, ahead: int = AHEAD) -> BinaryIO:
        """See Objects."""
        return ranged(self, found, ahead)

    def range(self, found: Found, start: int, length: int) -> bytes:
        """So many bytes of a file from `start` on. InvalidInput when it is not the file that was found."""
        try:
            with self._told(found.path):
                wanted = (start, start + length)
                tag = found.tag if found.tag.startswith(('"', "W/")) else None
                answer = obstore.get(self._store, found.path, options={"range": wanted, "if_match": tag})
                return bytes(answer.bytes())
        except (PreconditionError, FileNotFoundError):
            raise InvalidInput(
                f"input {self.place}/{found.path} changed since the job began: submit a new job, or restore it"
            ) from None

    def delete(self, path: str) -> None:
        """See Objects."""
        try:
            with self._told(path):
                obstore.delete(self._store, path)
        except FileNotFoundError:
            return

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Errors of the client as ours; a file that is not there, or another than expected, is for the caller."""
        try:
            yield
        except PreconditionError:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._failed(path, error) from None
            raise
        except (BaseError, OSError, ValueError) as error:
            raise self._failed(path, error) from None

    def _failed(self, path: str, error: Exception) -> StoreUnreachable:
        said = str(error).partition("\n\nDebug source")[0].replace("\n", " ")[:_SAID]
        return StoreUnreachable(
            f"{self.place}/{path}: {said}; check that the bucket exists and AWS_ENDPOINT_URL, AWS_REGION, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of this process"
        )


def _found(meta: ObjectMeta) -> Found:
    when = meta["last_modified"]
    return Found(meta["path"], meta["size"], meta["e_tag"] or str(when), int(when.timestamp() * 1e9))
