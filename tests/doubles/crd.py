"""Kubernetes manifests held against a CustomResourceDefinition, strictly: a key it does not have is a fault.

A cluster would drop such a key in silence, or refuse it only there. The CRDs are KubeRay's and not kept here; what was
held against them is kept as a record, one line for each key and the type of its value.

    python -m tests.doubles.crd FOLDER_OF_CRDS kuberay/*.yaml > tests/unit/house/kuberay.txt

Rules written in CEL are not asked.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

_KEPT = ("type", "enum", "pattern", "required", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength")
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
}


class Unknown(Exception):
    """No CRD is there for this kind and version."""


def read_crds(folder: Path) -> list[dict[str, Any]]:
    """The CRDs of a folder."""
    return [yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.glob("*.yaml"))]


def read_manifests(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The custom resources of some files, in their order; one whose kind and name were there before patches it."""
    found: list[dict[str, Any]] = []
    named: dict[tuple[str, str], dict[str, Any]] = {}
    for file in files:
        for document in yaml.safe_load_all(file.read_text("utf-8")):
            if document and "ray.io/" in document.get("apiVersion", ""):
                base = named.setdefault((document["kind"], document["metadata"]["name"]), document)
                found.append(document if base is document else _merged(base, document))
    return found


def faults(manifest: dict[str, Any], crds: list[dict[str, Any]]) -> list[str]:
    """What of a manifest its CRD does not take: place and reason, in order. Raises Unknown."""
    validator = jsonschema.Draft202012Validator(_schema_of(manifest, crds))
    found = sorted(validator.iter_errors(manifest), key=lambda error: list(map(str, error.absolute_path)))
    return [f"{'.'.join(map(str, error.absolute_path)) or '(top)'}: {error.message}" for error in found]


def shape(manifest: dict[str, Any]) -> list[str]:
    """Every key of a manifest with the type of its value, such as `RayCluster spec.authOptions.mode string`."""
    return sorted({f"{manifest['kind']} {path} {kind}" for path, kind in _leaves(manifest, "")})


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema as JSON Schema in which an object has no other keys than those that are named."""
    made: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if schema.get("nullable"):
        made["type"] = [made["type"], "null"]
    if "items" in schema:
        made["items"] = strict(schema["items"])
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        more = schema.get("additionalProperties", False)
        made["additionalProperties"] = strict(more) if isinstance(more, dict) else more
    if "properties" in schema:
        made["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
    return made


def _schema_of(manifest: dict[str, Any], crds: list[dict[str, Any]]) -> dict[str, Any]:
    group, _, version = str(manifest.get("apiVersion")).partition("/")
    for spec in (crd["spec"] for crd in crds):
        if (spec["group"], spec["names"]["kind"]) == (group, manifest.get("kind")):
            for served in spec["versions"]:
                if served["name"] == version:
                    schema = strict(served["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = _METADATA
                    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
                    return schema
    raise Unknown(f"no CRD for {manifest.get('apiVersion')} {manifest.get('kind')}")


def _merged(base: Any, patch: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return base | {key: _merged(base.get(key), value) for key, value in patch.items()}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _leaves(inner, f"{path}.{key}" if path else str(key))
        case list():
            for inner in value:
                yield from _leaves(inner, f"{path}[]")
        case bool():
            yield path, "boolean"
        case int():
            yield path, "integer"
        case _:
            yield path, "string"


def main(folder: Path, files: list[Path]) -> int:
    """Print the record of the manifests, or the faults; the exit code."""
    crds = read_crds(folder)
    manifests = read_manifests(files)
    wrong = [f"{manifest['kind']} {fault}" for manifest in manifests for fault in faults(manifest, crds)]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print("# Keys of kuberay/ that were held against the CRDs below (see tests/doubles/crd.py).")
    for path in sorted(folder.glob("*.yaml")):
        print(f"# {path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    print("\n".join(sorted({line for manifest in manifests for line in shape(manifest)})))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
