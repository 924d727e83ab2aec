"""cluster.yaml starts a cluster: Ray's schema and its own preparation both accept it (each misses faults)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

SCHEMA = Path(ray.autoscaler.__file__).with_name("ray-schema.json")


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "cluster.yaml").read_text("utf-8"))
    return loaded


@pytest.mark.promise("K2")
def test_ray_accepts_the_cluster_file(config: dict[str, Any]) -> None:
    jsonschema.validate(config, json.loads(SCHEMA.read_text("utf-8")))
    prepared = prepare_config(config)
    validate_config(prepared)
    kinds = prepared["available_node_types"]
    assert prepared["head_node_type"] in kinds
    assert sum(kind["max_workers"] for kind in kinds.values()) == len(config["provider"]["worker_ips"])


def test_the_schema_would_refuse_a_misspelt_key(config: dict[str, Any]) -> None:
    config["worker_start_commands"] = config.pop("worker_start_ray_commands")
    with pytest.raises(jsonschema.ValidationError, match="worker_start_commands"):
        jsonschema.validate(config, json.loads(SCHEMA.read_text("utf-8")))


def test_nobody_joins_without_the_token(config: dict[str, Any]) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "~/.ray/auth_token" in config["file_mounts"]
