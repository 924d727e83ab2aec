"""Sandboxes: manifests, permission profiles, isolation backends and snapshots. It knows neither agents nor Ray."""

if __name__ != "retinue.sandbox":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.sandbox'")
