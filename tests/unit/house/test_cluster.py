"""cluster.yaml starts a cluster: Ray's schema and its own preparation both accept it (each misses faults)."""

from __future__ import annotations

import json
import re
import subprocess
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


def test_the_file_holds_no_secret_and_copies_none_but_the_token(config: dict[str, Any]) -> None:
    assert set(config["file_mounts"]) == {"~/project", "~/.ray/auth_token"}
    assert {".retinue", ".git", ".venv*"} <= set(config["rsync_exclude"])
    for command in commands(config):
        assert "retinue.env" not in command or ". ~/retinue.env" in command
        assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEY)\w*=", command), command


def test_every_command_is_one_that_the_shell_can_read(config: dict[str, Any]) -> None:
    for command in commands(config):
        read = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, timeout=30)
        assert (read.returncode, read.stderr) == (0, ""), command


def commands(config: dict[str, Any]) -> list[str]:
    """Every command that the file has run on a machine."""
    return [command for key, listed in config.items() if key.endswith("_commands") for command in listed]
