"""What Ray is given of the settings: names of secrets, never the secrets."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from retinue.actors.children import host_child, trace_child
from retinue.actors.pools import pools_of
from retinue.actors.runtime import namespace_of
from retinue.host.settings import load_settings
from retinue.runs.resources import Resources

SECRETS = {"YARD_DB": "s3cr3t-of-the-database", "YARD_KEY": "s3cr3t-of-the-keys", "YARD_HOOK": "s3cr3t-of-the-hook"}
URL = "postgresql://ana:${YARD_DB}@db.example.com/retinue"


@pytest.mark.promise("K1")
def test_secrets_stay_references_in_what_actors_are_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    written = {
        "store": URL,
        "store_key": "${YARD_KEY}",
        "redact": ["YARD_DB"],
        "alerts": {"webhook_secret": "YARD_HOOK"},
        "models": {"keys": {"http://models.example.com/v1": "YARD_KEY"}},
    }
    (tmp_path / "retinue.yaml").write_text(json.dumps(written))
    settings = load_settings(tmp_path)
    plain = settings.model_dump_json()
    pools = pools_of(settings, {"gpu1-x": Resources(gpus=1, runtime_env={"env_vars": {"KEY": "${YARD_KEY}"}})})
    children = [host_child(plain, pool, 0) for pool in pools.values()] + [trace_child(plain)]
    passed = pickle.dumps([(child.name, child.arguments) for child in children]) + namespace_of(settings).encode()
    assert URL.encode() in passed and b"YARD_HOOK" in passed, "the references are there"
    assert [secret for secret in SECRETS.values() if secret.encode() in passed] == []


def test_a_runtime_is_named_after_its_store_and_not_after_who_asks(tmp_path: Path) -> None:
    names = set()
    for user in ("ana:${YARD_DB}@", "bo@", ""):
        (tmp_path / "retinue.yaml").write_text(json.dumps({"store": f"postgresql://{user}db.example.com/retinue"}))
        names.add(namespace_of(load_settings(tmp_path)))
    (tmp_path / "retinue.yaml").write_text("{}")
    assert len(names) == 1 and namespace_of(load_settings(tmp_path)) not in names
