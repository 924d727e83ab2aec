"""Ray's surroundings: what must be in the environment before Ray is imported.

The first import of this room. Says nothing that a user has said otherwise.
"""

from __future__ import annotations

import os

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def prepare() -> None:
    """Set what is not set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
