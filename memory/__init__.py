"""What a model is shown and what an agent keeps: context packets with their omissions, compaction,
handoff artifacts and recall. It knows neither models nor tools.
"""

if __name__ != "retinue.memory":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.memory'")
