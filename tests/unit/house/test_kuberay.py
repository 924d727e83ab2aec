"""kuberay/ is what KubeRay takes: its keys were held against the CRDs, its secrets are references, nothing is root.

The CRDs are not kept here. KUBERAY_CRDS names a folder that has them (helm-chart/kuberay-operator/crds of KubeRay);
without it, the record of what was held against them stands for them.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.crd import Unknown, faults, read_crds, read_manifests, shape

CRDS = os.environ.get("KUBERAY_CRDS")
SECRETS = re.compile(r"PASSWORD|SECRET|TOKEN|KEY", re.IGNORECASE)
REFERENCE = re.compile(r"\$\{[A-Z_]+\}")
Manifest = dict[str, Any]


@pytest.fixture
def manifests(root: Path) -> list[Manifest]:
    """The cluster, the cluster with each patch, and the job."""
    found = read_manifests(sorted((root / "kuberay").glob("*.yaml")))
    assert sorted(manifest["kind"] for manifest in found) == ["RayCluster", "RayCluster", "RayCluster", "RayJob"]
    return found


@pytest.fixture
def record(root: Path) -> list[str]:
    return (root / "tests/unit/house/kuberay.txt").read_text("utf-8").splitlines()


@pytest.mark.promise("K2")
def test_every_key_was_held_against_the_crds(manifests: list[Manifest], record: list[str]) -> None:
    known = {line for line in record if not line.startswith("#")}
    there = {line for manifest in manifests for line in shape(manifest)}
    assert sorted(there - known) == [], "hold it against KubeRay's CRDs first: tests/doubles/crd.py says how"
    assert sorted(known - there) == [], "the record is of other files: make it again (tests/doubles/crd.py)"


@pytest.mark.promise("K2")
@pytest.mark.skipif(CRDS is None, reason="KUBERAY_CRDS names no folder with KubeRay's CRDs")
def test_the_crds_take_every_manifest(manifests: list[Manifest], record: list[str]) -> None:
    folder = Path(CRDS or "")
    there = {f"# {path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in folder.glob("*.yaml")}
    held = {line for line in record if " sha256:" in line}
    assert held and sorted(held - there) == [], "the folder has another version of them"
    crds = read_crds(folder)
    assert [fault for manifest in manifests for fault in faults(manifest, crds)] == []
    for manifest in manifests:
        for place in mappings(manifest["spec"]):
            for key in list(place):
                place[key + "x"] = place.pop(key)
                assert faults(manifest, crds) or free(key), f"{key}x was taken"
                place[key] = place.pop(key + "x")


def test_a_misspelt_key_is_not_in_the_record(manifests: list[Manifest], record: list[str]) -> None:
    spec = manifests[0]["spec"]["workerGroupSpecs"][0]
    spec["minReplica"] = spec.pop("minReplicas")
    assert set(shape(manifests[0])) - set(record) == {"RayCluster spec.workerGroupSpecs[].minReplica integer"}


def test_nobody_joins_without_the_token(manifests: list[Manifest]) -> None:
    for manifest in of_kind(manifests, "RayCluster"):
        assert manifest["spec"]["authOptions"] == {"mode": "token", "secretName": "retinue-token"}


def test_secrets_are_references(manifests: list[Manifest]) -> None:
    entries = [entry for container in containers(manifests) for entry in container.get("env", [])]
    assert {entry["name"] for entry in entries} == {"RETINUE_STORE", "RETINUE_STORE_KEY", "STORE_PASSWORD", "STORE_KEY"}
    for entry in entries:
        if "valueFrom" in entry:
            assert list(entry["valueFrom"]) == ["secretKeyRef"]
        elif SECRETS.search(entry["name"]):
            assert REFERENCE.fullmatch(entry["value"]), entry
        else:
            assert REFERENCE.search(entry["value"].partition("@")[0]), entry


def test_nothing_is_root_and_everything_has_a_size(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
    for container in containers(manifests):
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert len({container["image"] for container in containers(manifests)}) == 1


def test_the_workers_grow_and_shrink_between_bounds(manifests: list[Manifest]) -> None:
    for manifest in of_kind(manifests, "RayCluster"):
        assert manifest["spec"]["enableInTreeAutoscaling"] is True
        for group in manifest["spec"]["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] < 1000


def test_the_manifests_name_the_locked_ray(root: Path, manifests: list[Manifest]) -> None:
    locked = re.search(r"^ray(?:\[.*\])?==(\S+)", (root / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    assert locked is not None
    assert {manifest["spec"]["rayVersion"] for manifest in of_kind(manifests, "RayCluster")} == {locked[1]}


# -- the strict reading of a CRD, on one made up for it --------------------------------------------------

CRD: Manifest = {
    "spec": {
        "group": "example.org",
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "metadata": {"type": "object"},
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]},
                                    "mode": {"type": "string", "enum": ["on", "off"]},
                                    "note": {"type": "string", "nullable": True},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "parts": {
                                        "type": "array",
                                        "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    }
}
THING: Manifest = {
    "apiVersion": "example.org/v1",
    "kind": "Thing",
    "metadata": {"name": "one", "labels": {"any/key": "x"}},
    "spec": {
        "size": "2Gi",
        "mode": "on",
        "note": None,
        "labels": {"b": "c"},
        "open": {"d": 1},
        "parts": [{"name": "n"}],
    },
}


def test_what_the_crd_names_is_taken() -> None:
    assert faults(THING, [CRD]) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sise": 1}, "spec: Additional properties are not allowed ('sise' was unexpected)"),
        ({"parts": [{"nam": "n"}]}, "spec.parts.0: Additional properties are not allowed ('nam' was unexpected)"),
        ({"mode": "maybe"}, "spec.mode: 'maybe' is not one of ['on', 'off']"),
        ({"labels": {"b": 1}}, "spec.labels.b: 1 is not of type 'string'"),
        ({"size": None}, "spec.size: None is not of type 'integer', 'string'"),
    ],
)
def test_what_the_crd_does_not_name_is_a_fault(change: Manifest, fault: str) -> None:
    thing = copy.deepcopy(THING)
    thing["spec"] |= change
    assert faults(thing, [CRD]) == [fault]


def test_a_key_that_is_missing_and_a_kind_that_is_unknown_are_told() -> None:
    thing = copy.deepcopy(THING)
    del thing["spec"]["size"]
    assert faults(thing, [CRD]) == ["spec: 'size' is a required property"]
    with pytest.raises(Unknown, match=r"no CRD for example\.org/v2 Thing"):
        faults(THING | {"apiVersion": "example.org/v2"}, [CRD])


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The specification of every pod."""
    for manifest in manifests:
        spec = manifest["spec"]
        if manifest["kind"] == "RayJob":
            yield spec["submitterPodTemplate"]["spec"]
        else:
            yield from (group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]))


def containers(manifests: list[Manifest]) -> list[Manifest]:
    return [container for pod in pods(manifests) for container in pod["containers"]]


def mappings(value: Any) -> Iterator[Manifest]:
    """Every mapping in a value, itself first."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from mappings(each)


def free(key: str) -> bool:
    """Whether a key is a name that its writer chose: of a label, a resource, a parameter of `ray start`."""
    return "/" in key or key in {"cpu", "memory", "storage", "num-cpus"}
