"""What `sandbox:` of retinue.yaml says, read and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinue.host.sandboxing import manifests_of, private_folders, sandboxing_of
from retinue.host.settings import Settings, load_settings
from retinue.runs.errors import ConfigError


def settings_of(folder: Path, text: str) -> Settings:
    (folder / "retinue.yaml").write_text(text)
    return load_settings(folder)


def test_what_is_said_reaches_those_who_make_sandboxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_SANDBOX__KEEP", "2d")
    settings = settings_of(
        tmp_path,
        """
sandbox:
  folder: boxes
  profiles:
    web: {extends: build, hosts: [example.org], limits: {memory: 1GiB, disk: null}}
  snapshots: file:///shared/snapshots
  snapshot_limit: 1.5GB
  uids: 700000-700009
""",
    )
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/coder.yaml").write_text("profile: web\n")
    again = Settings.model_validate_json(settings.model_dump_json())
    assert again == settings
    node = sandboxing_of(again)
    assert (node.backend, node.snapshots, node.snapshot_bytes) == ("auto", "file:///shared/snapshots", 1_500_000_000)
    assert node.keep_seconds == 2 * 86_400
    assert node.users == ((700_000, 700_009) if os.geteuid() == 0 else None)
    profile = manifests_of(again).loaded("coder").profile
    assert (profile.hosts, profile.limits.memory, profile.limits.disk) == (("example.org",), 2**30, None)
    assert profile.limits.seconds == 600
    assert private_folders(settings) == (tmp_path / ".retinue", Path("/shared/snapshots"))


def test_without_a_word_there_are_no_manifests(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "")
    assert manifests_of(settings).names() == [] and sandboxing_of(settings).snapshot_bytes == 20 * 2**30


@pytest.mark.promise("E4")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "profiles: {a: {extends: strict, confined: false}}",
            "key 'sandbox.profiles': a.confined: 'strict' is",
        ),
        ("profiles: {a: {extends: b}}", "there is no profile 'b'"),
        ("profiles: {a: {extends: strict, limit: {}}}", "did you mean 'sandbox.profiles.a.limits'"),
        ("profiles: {a: {extends: strict, limits: {memory: much}}}", "must be a size such as 512MiB"),
        ("snapshot_limit: much", "must be a size such as 500MB"),
        ("uids: all", "must be a range of users"),
        ("backend: Docker!", "must be auto, or the name"),
        ("snapshots: s3://key@bucket", "a value that is not shown"),
        ("keep: soon", "sandbox.keep"),
    ],
)
def test_a_mistake_names_its_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings_of(tmp_path, f"sandbox: {{{text}}}\n")


def test_a_range_of_users_that_somebody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="uids"):
        sandboxing_of(settings_of(tmp_path, "sandbox: {uids: 9999-1000}\n"))
