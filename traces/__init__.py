"""The journal projected into DuckDB tables, the queries over them, and spans sent to other systems.
Everything here is derived and can be rebuilt; it does not know how a run executes.
"""

if __name__ != "retinue.traces":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.traces'")
