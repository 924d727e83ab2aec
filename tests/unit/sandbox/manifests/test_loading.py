"""Manifests by name: what they say is checked where it stands, and their version is the digest of all they take in."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests.unit.sandbox.manifests.projects import Project

from retinue.runs.errors import ConfigError, UnknownName
from retinue.runs.sandboxes import ManifestInfo
from retinue.sandbox.extending import Changes, Extension
from retinue.sandbox.manifests.loading import environment_of
from retinue.sandbox.manifests.manifest import Manifest

pytestmark = [pytest.mark.promise("E1")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_what_a_manifest_says_of_itself(project: Project) -> None:
    project.manifest("revision: 4\nprofile: web\nenvironment: {KEY_ID: '${DESK}'}\nlimits: {memory: 64MiB}\n")
    manifests = project.manifests(web=Extension(extends="build", hosts=("example.org",)))
    info = manifests.info("coder")
    assert info == ManifestInfo(
        name="coder",
        version=info.version,
        revision=4,
        profile="web",
        profile_digest=info.profile_digest,
        hosts=("example.org",),
        secrets=("DESK",),
        confined=True,
        network="listed",
        replayable=False,
    )
    assert manifests.loaded("coder").profile.limits.memory == 64 * 2**20 and manifests.names() == ["coder"]
    project.manifest("replayable: false\n")
    assert project.manifests().info("coder").replayable is False
    project.manifest("profile: unconfined\n")
    assert project.manifests().info("coder").confined is False


def test_the_version_changes_with_all_that_it_takes_in_and_with_nothing_else(project: Project) -> None:
    project.put("a", "1")
    project.put("src/b", "2")
    project.put("src/x.pyc", "2")
    text = "files: {a: {from: a}}\ndirectories: {src: {from: src, exclude: ['*.pyc']}}\n"
    project.manifest(text)
    manifests = project.manifests()
    seen = [manifests.info("coder").version]

    def changed() -> bool:
        seen.append(manifests.refreshed("coder").info.version)
        return seen[-1] not in seen[:-1]

    project.manifest("# said otherwise\n" + text.replace("files: {a: {from: a}}", "files:\n  a:\n    from: a"))
    project.put("src/x.pyc", "3")
    assert not changed()
    project.put("a", "2")
    assert changed()
    project.put("src/b", "2", 0o755)
    assert changed()
    project.put("src/new", "")
    assert changed()
    os.symlink("new", project.folder / "src/link")
    assert changed()
    project.manifest(text + "revision: 2\n")
    assert changed()
    os.utime(project.folder / "a", (1, 1))
    assert not changed()


def test_what_is_asked_often_is_looked_at_when_its_file_or_the_lock_changes(project: Project) -> None:
    project.put("a", "1")
    project.manifest("files: {a: {from: a}}\n")
    manifests = project.manifests()
    first = manifests.info("coder")
    assert manifests.loaded("coder") is manifests.loaded("coder")
    project.put("a", "2")
    assert manifests.info("coder") == first
    again = manifests.refreshed("coder").info
    assert manifests.info("coder") == again != first
    project.manifest("files: {a: {from: a}}\nrevision: 2\n")
    assert manifests.info("coder").revision == 2
    project.put("sandbox.lock", "nonsense")
    with pytest.raises(ConfigError):
        manifests.info("coder")


def test_the_version_does_not_depend_on_where_the_project_lies(tmp_path: Path) -> None:
    infos = []
    for name in ("one", "two"):
        project = Project(tmp_path / name)
        project.put("data/a", "1")
        project.manifest("mounts: {DATA: data}\ndirectories: {copy: data}\n")
        manifests = project.manifests()
        infos.append(manifests.info("coder"))
        folder = str(tmp_path / name / "data")
        assert manifests.loaded("coder").profile.reads == (folder,)
        assert environment_of(manifests.loaded("coder").manifest, {}, {}) == {"DATA": folder}
    assert infos[0] == infos[1]


def test_an_unknown_name_has_close_matches(project: Project) -> None:
    project.manifest("", "coder")
    for name, said in (("coda", "did you mean coder?"), ("x" * 300, "there are: coder"), ("../coder", "coder")):
        with pytest.raises(UnknownName, match=said):
            project.manifests().loaded(name)


def test_an_empty_manifest_is_an_empty_workspace_under_strict(project: Project) -> None:
    project.manifest("")
    assert project.manifests().loaded("coder").manifest == Manifest(name="coder")
    assert project.manifests().info("coder").profile == "strict"


BAD = {
    "revison: 2\n": "line 1: there is no key 'revison'; did you mean revision?",
    "files:\n  a: {txt: x}\n": "line 2: there is no key 'files.a.txt'; did you mean text",
    "files:\n  a: {text: x, from: y}\n": "line 2: key 'files.a': give exactly one",
    "files: {../a: x}\n": "line 1: key 'files': '../a' leads out of the workspace",
    "files: {/a: x}\n": "leads out of the workspace",
    "files: {.: x}\n": "names the workspace itself",
    "files: {a: x, ./a: y}\n": "is here already",
    "files: {a: x}\ndirectories: {a/b: }\n": "line 2: directories.a/b: 'a' above it is a file",
    "directories: {a: }\narchives: {a: {from: x}}\n": "is at the same place",
    "files: {a: {from: none}}\n": "line 1: files.a: 'none' cannot be taken",
    "files: {a: {from: ../out}}\n": "leads out of the project",
    "files: {a: {from: /etc/passwd}}\n": "leads out of the project",
    "files: {a: {from: link}}\n": "leads out of the project",
    "files: {a: {from: .retinue/store}}\n": "private to Retinue",
    "files: {a: {from: fifo}}\n": "no regular file",
    "directories: {a: .retinue}\n": "private to Retinue",
    "directories: {a: .}\n": "exclude it",
    "archives: {a: {from: file, sha256: '" + "0" * 64 + "'}}\n": "it is another file",
    "profile: strikt\n": "line 1: there is no profile 'strikt': did you mean strict",
    "revision: 1\nlimits:\n  memory: 1TiB\n": r"line 2: limits.memory: .* is more than the .* of profile 'strict'",
    "limits: {cpu_seconds: null}\n": "no limit is more than the 600",
    "limits: {memory: much}\n": "must be a size such as 512MiB",
    "limits: {seconds: null}\n": "always has a bound of time",
    "environment: {API_KEY: abc}\n": "looks like a secret",
    "environment: {A-B: abc}\n": "no name of an environment variable",
    "environment: {A: ghp_abc}\n": "looks like a secret",
    "mounts: {A: /}\n": "too much to be shown",
    "mounts: {A: /etc/ssl}\n": "belongs to the system",
    "mounts: {A: .}\n": "private to Retinue",
    "mounts: {A: .retinue/blobs}\n": "private to Retinue",
    "mounts:\n  A: nowhere\n": "line 2: mounts.A: 'nowhere': there is no folder",
    "mounts: {A: data}\nenvironment: {A: b}\n": "a mount has this name",
    "checkouts: {a: {from: repo, commit: main}}\n": "must be a whole commit id",
    "checkouts: {a: {from: 'http://x/y', commit: " + "a" * 40 + "}}\n": "must be https",
    "checkouts: {a: {from: 'https://u:p@x/y', commit: " + "a" * 40 + "}}\n": "holds a user or a password",
    "checkouts: {a: {from: 'ext::sh -c x', commit: " + "a" * 40 + "}}\n": "must be a folder",
    "checkouts: {a: {from: --upload-pack=x, commit: " + "a" * 40 + "}}\n": "must be a folder",
    "exclude: ['[z-a]']\n": "is no pattern",
    "packages: {requirements: file}\n": "without `wheels` pip needs hosts",
    "packages: {requirements: file, wheels: data}\n": "line 1 has no hash",
    "packages: {requirements: options, wheels: data}\n": "line 2 is no requirement but an option",
    "packages: {requirements: direct, wheels: data}\n": "is no requirement",
    "packages: {requirements: file, wheels: data, into: ../x}\n": "leads out",
    "packages: {requirements: file, wheels: data, into: a}\nfiles: {a/b: x}\n": "made by another key too",
    "environment: {PORT: 8080}\n": "key 'environment.PORT': must be text: put it in quotes .got a value that is not",
    "files: [a]\n": "must hold `name: value` lines",
    "exclude: x\n": "must be a list",
    "name: other\n": "the file's name says 'coder'",
    "- a\n": "must hold `key: value` lines",
    "a: &x 1\nb: *x\n": "aliases",
    "files: {a: x}\nfiles: {b: y}\n": "stands here and on line 1",
}


@pytest.mark.parametrize("text", BAD)
def test_a_mistake_is_told_with_file_line_key_and_remedy(project: Project, text: str) -> None:
    project.put("file", "some==1.0\n")
    project.put("options", "# first\n--index-url https://example.org/simple\n")
    project.put("direct", "some @ https://example.org/some.whl --hash=sha256:" + "0" * 64)
    project.put("data/a", "x")
    project.put(".retinue/store", "x")
    project.put("../out", "x")
    os.symlink("../out", project.folder / "link")
    os.mkfifo(project.folder / "fifo")
    project.manifest(text)
    with pytest.raises(ConfigError, match=BAD[text]) as caught:
        project.manifests().loaded("coder")
    assert not text.startswith("environment") or "abc" not in str(caught.value)


def test_an_archive_with_the_right_hash_is_taken(project: Project) -> None:
    project.put("file", "x")
    project.manifest(f"archives: {{a: {{from: file, sha256: {hashlib.sha256(b'x').hexdigest()}}}}}\n")
    assert project.manifests().loaded("coder").manifest.archives["a"].sha256


def test_what_is_private_is_left_out_of_a_folder_around_it(project: Project) -> None:
    project.put(".retinue/store", "x")
    project.put("a", "x")
    project.manifest("directories: {all: .}\n")
    with project.manifests().sources.folder(".") as folder:
        items = [item.path for item in folder.items()]
    assert items == [b"a", b"sandbox", b"sandbox/coder.yaml"]


def test_changed_limits_survive_a_trip_as_json() -> None:
    changes = Changes.model_validate({"memory": "64MiB", "cpu_seconds": None})
    again = Changes.model_validate_json(changes.model_dump_json())
    assert again.given == changes.given == {"memory": 64 * 2**20, "cpu_seconds": None}
