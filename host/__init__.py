"""A process that runs runs: composes the parts from plain settings, leases work, executes each run as
a coroutine and performs the standing duties (timers, expired leases, retention). It works the same
in a caller's process and inside an actor, and so knows nothing of Ray.
"""

if __name__ != "retinue.host":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.host'")
