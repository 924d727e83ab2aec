"""Appends to journals on their way to the pen: in the order in which they come, run by run.

What is large is encoded in a thread, and what the same run appends after it waits for that; nobody else does. Knows no
transaction.
"""

from __future__ import annotations

import asyncio
from itertools import chain

from retinue.runs.hostloop import host_loop
from retinue.runs.ownership import Append, Appended
from retinue.runs.piecewise import weigh
from retinue.store import encoding, owning
from retinue.store.encoding import EncodedAppend
from retinue.store.frames import FrameCodec
from retinue.store.writer import Writer

LARGE = 1024 * 1024
"""Bytes of contents that are encoded on the event loop."""


class Appends:
    """The appends of one process, for one event loop at a time."""

    def __init__(self, codec: FrameCodec, writer: Writer) -> None:
        self._codec = codec
        self._writer = writer
        self._aside: dict[str, asyncio.Task[None]] = {}

    def submit(self, append: Append) -> asyncio.Future[Appended]:
        """Submitted when what its run appended before is; the future resolves when it is durable. StoreError for
        what is no JSON, at once or by the future."""
        before = self._aside.get(append.run_id)
        if before is None and not _is_large(append):
            return self._write(append, encoding.encode_append(self._codec, append))
        loop = host_loop()
        promise: asyncio.Future[Appended] = loop.create_future()
        task = loop.create_task(self._follow(before, append, promise), name="retinue large append")
        self._aside[append.run_id] = task
        task.add_done_callback(lambda ended: self._forget(append.run_id, ended))
        return promise

    async def _follow(
        self, before: asyncio.Task[None] | None, append: Append, promise: asyncio.Future[Appended]
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            written = self._write(append, await asyncio.to_thread(encoding.encode_append, self._codec, append))
        except Exception as error:  # it is whoever waits for it who has to know
            if not promise.done():
                promise.set_exception(error)
        else:
            written.add_done_callback(lambda ended: _pass_on(ended, promise))

    def _write(self, append: Append, job: EncodedAppend) -> asyncio.Future[Appended]:
        encoded = (job.frame, *chain.from_iterable(job.children), *((job.parked,) if job.parked else ()))
        blobs = [blob for frame in encoded for blob in frame.blobs]
        prepare = (lambda: self._codec.keep(append.tenant_id, blobs)) if blobs else None
        return self._writer.submit(lambda c: owning.append(c, job), prepare, brief=job.brief, append=job)

    def _forget(self, run_id: str, ended: asyncio.Task[None]) -> None:
        if self._aside.get(run_id) is ended:
            del self._aside[run_id]


def _is_large(append: Append) -> bool:
    left = LARGE
    for entry in append.entries:
        left -= weigh(entry.content, left)
        if left < 0:
            return True
    return False


def _pass_on(ended: asyncio.Future[Appended], promise: asyncio.Future[Appended]) -> None:
    if promise.done():
        return
    error = None if ended.cancelled() else ended.exception()
    if error is not None:
        promise.set_exception(error)
    elif not ended.cancelled():
        promise.set_result(ended.result())
    else:
        promise.cancel()
