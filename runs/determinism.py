"""The loop a workflow's body runs on: small, deterministic, without time, threads or input.

The body runs until it can do nothing more, then stands still until completions are delivered to it. What it
does depends only on which completions were delivered together and in which order, so the same deliveries
bring it to the same place. Time, waiting, randomness and I/O come from its context; the loop refuses the
rest and names the remedy. Knows no journal.
"""

from __future__ import annotations

import asyncio
import contextvars
import dis
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from types import CodeType, ModuleType
from typing import Any, NoReturn

from retinue.runs.errors import InvalidInput, RetinueError

_LOG = logging.getLogger("retinue.runs")

SCOPE: contextvars.ContextVar[str] = contextvars.ContextVar("retinue_scope", default="")
"""Path of the branch that code of a body runs in: '' at the top, '/1' in its first task, '/1/2' below that."""


class NotDeterministic(RetinueError):
    """A body asked for something that cannot be replayed; the message names the remedy."""


class BodyLoop(asyncio.AbstractEventLoop):
    """Runs the tasks of one body. `now` is the time of the newest delivery, in seconds since the epoch;
    `outer` is the loop of the thread, if one is running there."""

    def __init__(self, now: float, outer: asyncio.AbstractEventLoop | None = None) -> None:
        self.now = now
        self._outer = outer
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._branches: dict[str, int] = {}

    def run_until_quiet(self) -> None:
        """Run everything that can run. Returns when every task waits for a delivery or has ended."""
        outer = self._outer
        task = asyncio.current_task(outer) if outer is not None else None
        if outer is not None and task is not None:
            asyncio._leave_task(outer, task)
        asyncio._set_running_loop(self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    _run(handle)
        finally:
            asyncio._set_running_loop(outer)
            if outer is not None and task is not None:
                asyncio._enter_task(outer, task)

    def abandon(self) -> None:
        """End all tasks; the caller makes sure that they can reach nothing any more."""
        for task in self._tasks:
            task.cancel()
        self.run_until_quiet()
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, context: contextvars.Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        """A branch: the steps inside it get keys of their own, whatever its neighbours do."""
        context = context or contextvars.copy_context()
        parent = SCOPE.get()
        number = self._branches[parent] = self._branches.get(parent, 0) + 1
        context.run(SCOPE.set, f"{parent}/{number}")
        return self._start(coro, context, options.get("name"))

    def start_body(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """The top of the body; its scope is empty."""
        context = contextvars.copy_context()
        context.run(SCOPE.set, "")
        return self._start(coro, context, None)

    def _start(
        self, coro: Coroutine[Any, Any, Any], context: contextvars.Context, name: str | None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, context=context, name=name)
        self._tasks.append(task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Queue a callback; first in, first out."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def time(self) -> float:
        """The time of the newest delivery: the same live and on replay."""
        return self.now

    def get_debug(self) -> bool:
        """Never in debug mode."""
        return False

    def is_running(self) -> bool:
        """True: code that asks runs on it."""
        return True

    def is_closed(self) -> bool:
        """It holds nothing that needs closing."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error nobody looked at is said, not lost."""
        _LOG.warning("in a workflow's branch: %s", context.get("exception") or context.get("message"))

    def call_later(self, delay: float, callback: Any, *args: Any, **options: Any) -> NoReturn:  # type: ignore[override]
        """Refused: a wait must be durable."""
        raise NotDeterministic(f"a workflow cannot wait {delay} s in memory: use `await ctx.sleep({delay})`")

    def call_at(self, when: float, callback: Any, *args: Any, **options: Any) -> NoReturn:  # type: ignore[override]
        """Refused: a wait must be durable."""
        raise NotDeterministic("a workflow cannot use asyncio timeouts: use `ctx.sleep` or a budget of seconds")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refused: threads cannot be replayed."""
        raise NotDeterministic("a workflow cannot use threads: put the work into `ctx.step` or a tool")

    async def create_connection(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: the network is an effect."""
        raise NotDeterministic("a workflow cannot open connections: put the call into `ctx.step` or a tool")

    async def getaddrinfo(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: the network is an effect."""
        raise NotDeterministic("a workflow cannot use the network: put the call into `ctx.step` or a tool")

    async def subprocess_exec(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a process is an effect."""
        raise NotDeterministic("a workflow cannot start processes: put the call into `ctx.step` or a tool")


_REMEDIES = {
    "time": "`ctx.now()` for the time and `ctx.sleep` to wait",
    "datetime": "`ctx.now()`",
    "random": "`ctx.random`",
    "secrets": "`ctx.random`",
    "uuid": "`ctx.random`, or an id from the input",
    "socket": "`ctx.step` or a tool",
    "subprocess": "`ctx.step` or a tool",
    "threading": "`ctx.step` or a tool",
    "builtins": "`ctx.step` or a tool",
}
_REFUSED = {
    "time": {"time", "time_ns", "monotonic", "perf_counter", "sleep", "localtime", "gmtime"},
    "datetime": {"now", "utcnow", "today"},
    "random": {
        "random",
        "randint",
        "choice",
        "choices",
        "shuffle",
        "uniform",
        "sample",
        "randrange",
        "getrandbits",
    },
    "secrets": {"token_hex", "token_bytes", "token_urlsafe", "choice", "randbelow"},
    "uuid": {"uuid1", "uuid4"},
    "socket": {"socket", "create_connection"},
    "subprocess": {"run", "Popen", "check_output", "check_call"},
    "threading": {"Thread"},
    "builtins": {"open", "input"},
}


def _run(handle: asyncio.Handle) -> None:
    """Run a callback. A task that exits has ended with that; the host must not exit with it."""
    try:
        handle._run()
    except SystemExit as error:
        _LOG.warning("a workflow called exit(%s): it ends its run, not the host", error.code)


def body_loop(now: float, outer: asyncio.AbstractEventLoop | None = None) -> BodyLoop:
    """A loop for one body. What the interface has and BodyLoop does not, asyncio itself refuses."""
    return BodyLoop(now, outer)  # type: ignore[abstract]


def refuse_side_doors(function: Callable[..., Any]) -> None:
    """Raise InvalidInput when a workflow's own code names time, randomness or I/O directly."""
    code = inspect.unwrap(function).__code__
    for module, name in _names_used(code, function.__globals__):
        if name in _REFUSED.get(module, ()):
            raise InvalidInput(
                f"workflow {function.__name__!r} uses {module}.{name}, which cannot be replayed: "
                f"use {_REMEDIES[module]}"
            )


def _names_used(code: CodeType, names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    owner: Any = None
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            owner = names.get(step.argval)
            if owner is None and step.argval in _REFUSED["builtins"]:
                yield "builtins", step.argval
            elif callable(owner) and getattr(owner, "__module__", None):
                yield owner.__module__, getattr(owner, "__name__", "")
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and owner is not None:
            yield _home(owner), step.argval
            owner = getattr(owner, step.argval, None) if isinstance(owner, ModuleType) else None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_used(constant, names)


def _home(owner: Any) -> str:
    return owner.__name__ if isinstance(owner, ModuleType) else str(getattr(owner, "__module__", ""))
