"""Hosts placed as Ray actors: the supervisor, the pools of run and worker actors, the trace actor, and
where each is put. This is the only room that imports ray; it decides nothing about runs, since
whatever an actor holds can be loaded again from the store.
"""

if __name__ != "retinue.actors":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.actors'")
