"""The work in Temporal: with a server that is given, else with the in-memory test server, which promises nothing.

TEMPORAL_ADDRESS=host:port takes a running server; TEMPORAL_CLI=/path/to/temporal starts its development server on a
file in a temporary folder. Neither program nor server is on the package index: what is there is the SDK's test server,
which forgets everything when it stops. Its figures are named temporal_memory_*: an upper bound, not a peer with equal
durability. Chosen in Temporal's favour:
- A step is an activity: a local activity is recorded with its workflow task, so not before the next step begins.
- No sandbox around workflow code, a cache for every run, and pollers and slots for all that runs at once.
- The development server's file is WAL with synchronous=FULL, like the others.
- A child is a workflow of its own or an activity (a worker anywhere may take it); the faster is reported.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from measure import (
    CHILDREN,
    FAN_OUT_LIMIT,
    PAYLOAD,
    PILOT_RUNS,
    RUNS_LIMIT,
    SEQUENTIAL,
    STEPS,
    Stopwatch,
    bytes_in,
    counts_within_the_limit,
    report,
    runs_within_the_limit,
)
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "peer"
TIMEOUT = timedelta(seconds=120)
CHUNK = 1_000  # children at once: a server refuses more than 2,000 pending ones
FILE_SETTINGS = ("--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=FULL")
WARM = 20  # steps before the first figure


@activity.defn
async def step(number: int) -> str:
    """A no-op step."""
    return PAYLOAD


@activity.defn
async def small_child(number: int) -> int:
    """A no-op child that is an activity."""
    return number


@workflow.defn
class Flow:
    """One step after the other."""

    @workflow.run
    async def run(self, count: int) -> str:
        """The last payload."""
        payload = ""
        for number in range(count):
            payload = await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT)
        return payload


@workflow.defn
class Child:
    """A no-op child."""

    @workflow.run
    async def run(self, number: int) -> int:
        """The number it was given."""
        return number


@workflow.defn
class FanOut:
    """Children as workflows."""

    @workflow.run
    async def run(self, count: int) -> int:
        """The sum of what they gave back."""
        total = 0
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            total += sum(await asyncio.gather(*(workflow.execute_child_workflow(Child.run, n) for n in numbers)))
        return total


@workflow.defn
class SmallFanOut:
    """Children as activities."""

    @workflow.run
    async def run(self, count: int) -> int:
        """The sum of what they gave back."""
        total = 0
        for start in range(0, count, CHUNK):
            calls = (
                workflow.execute_activity(small_child, number, start_to_close_timeout=TIMEOUT)
                for number in range(start, min(start + CHUNK, count))
            )
            total += sum(await asyncio.gather(*calls))
        return total


@asynccontextmanager
async def connection(folder: Path) -> AsyncIterator[tuple[Client, str]]:
    """(client, prefix of the names of its figures); exits with 3 and the reason where there is no server at all."""
    if address := os.environ.get("TEMPORAL_ADDRESS"):
        yield await Client.connect(address), "temporal"
    elif program := os.environ.get("TEMPORAL_CLI"):
        async with await WorkflowEnvironment.start_local(
            dev_server_existing_path=program,
            dev_server_database_filename=str(folder / "temporal.db"),
            dev_server_log_level="error",
            dev_server_extra_args=FILE_SETTINGS,
        ) as environment:
            yield environment.client, "temporal"
    elif program := shutil.which("temporal-test-server", path=str(Path(sys.executable).parent)):
        async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=program) as environment:
            target = environment.client.service_client.config.target_host
            yield await Client.connect(target), "temporal_memory"  # a plain client, which skips no time
    else:
        print("skipped: no server. Set TEMPORAL_ADDRESS or TEMPORAL_CLI (see the first lines)", file=sys.stderr)
        sys.exit(3)


async def seconds_for(client: Client, label: str, runs: int, steps: int) -> float:
    """Seconds for `runs` concurrent runs of `steps` steps."""
    with Stopwatch() as watch:
        await asyncio.gather(
            *(client.execute_workflow(Flow.run, steps, id=f"{label}-{run}", task_queue=QUEUE) for run in range(runs))
        )
    return watch.seconds


async def fan_out(client: Client, parent: type[FanOut] | type[SmallFanOut], count: int) -> float:
    """Seconds for `count` children of one parent."""
    with Stopwatch() as watch:
        total = await client.execute_workflow(parent.run, count, id=f"{parent.__name__}-{count}", task_queue=QUEUE)
    assert total == count * (count - 1) // 2
    return watch.seconds


async def measure(client: Client, prefix: str, folder: Path) -> None:
    """The figures; the sequential run is shortened where a pilot says that it would take longer than the others."""
    await seconds_for(client, "warm", 1, WARM)
    pilot = await seconds_for(client, "pilot", 1, WARM)
    steps, before = min(SEQUENTIAL, int(RUNS_LIMIT * WARM / pilot)), bytes_in(folder)
    seconds = await seconds_for(client, "one", 1, steps)
    report(f"{prefix}_steps_1_run", steps / seconds, "1/s", f"activities, {steps:,} steps")
    if before:
        report(f"{prefix}_bytes_per_step", (bytes_in(folder) - before) / steps, "B", "activities")
    await fan_outs(client, prefix, SmallFanOut, "activities")
    runs = runs_within_the_limit(PILOT_RUNS, await seconds_for(client, "few", PILOT_RUNS, STEPS))
    async with asyncio.timeout(2 * RUNS_LIMIT):
        seconds = await seconds_for(client, "many", runs, STEPS)
    report(f"{prefix}_steps_1000_runs", runs * STEPS / seconds, "1/s", f"activities, {runs:,} runs")
    await fan_outs(client, prefix, FanOut, "child workflows")  # last: the test server does not survive 10,000


async def fan_outs(client: Client, prefix: str, parent: type[FanOut] | type[SmallFanOut], how: str) -> None:
    """Report the fan-outs of one kind that end in time."""
    async with asyncio.timeout(FAN_OUT_LIMIT):
        seconds = await fan_out(client, parent, CHILDREN[0])
    report(f"{prefix}_fanout_{CHILDREN[0]}", seconds, "s", how)
    for count in counts_within_the_limit(seconds):
        async with asyncio.timeout(FAN_OUT_LIMIT):
            seconds = await fan_out(client, parent, count)
        report(f"{prefix}_fanout_{count}", seconds, "s", how)


async def main() -> None:
    """Serve and measure in one process."""
    with tempfile.TemporaryDirectory() as folder:
        async with connection(Path(folder)) as (client, prefix):
            worker = Worker(
                client,
                task_queue=QUEUE,
                workflows=[Flow, Child, FanOut, SmallFanOut],
                activities=[step, small_child],
                workflow_runner=UnsandboxedWorkflowRunner(),
                max_cached_workflows=5_000,
                max_concurrent_workflow_tasks=500,
                max_concurrent_activities=500,
                max_concurrent_workflow_task_polls=20,
                max_concurrent_activity_task_polls=20,
            )
            async with worker:
                await measure(client, prefix, Path(folder))


if __name__ == "__main__":
    asyncio.run(main())
