"""Settings: the file, the environment over it, the defaults under it, and every mistake told where it stands."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from retinue.host.settings import Settings, load_settings
from retinue.runs.errors import ConfigError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(text: str | bytes, folder: Path = Path()) -> Settings:
    """The settings of a folder whose retinue.yaml says this."""
    (folder / "retinue.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(folder)


def refuse(text: str | bytes) -> str:
    """The message that refuses a retinue.yaml."""
    with pytest.raises(ConfigError) as caught:
        configure(text)
    return str(caught.value)


def test_a_project_works_without_a_file(project: Path) -> None:
    settings = load_settings()
    assert (settings.folder, settings.file) == (project, None)
    assert settings.default_model == "builtin:extractive"
    assert settings.data_folder == project / ".retinue"
    assert settings.policy_folder is None
    assert settings.principal


def test_an_empty_file_is_the_defaults() -> None:
    without = load_settings()
    assert configure("# nothing yet\n") == without.model_copy(update={"file": Path("retinue.yaml").absolute()})


def test_the_file_is_found_from_a_folder_below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("tenant: acme\n")
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    settings = load_settings()
    assert (settings.tenant, settings.folder) == ("acme", project)


def test_a_project_is_named_by_its_folder_or_its_file(project: Path) -> None:
    other = project / "other"
    other.mkdir()
    (other / "mine.yaml").write_text("tenant: mine\n")
    configure("tenant: acme\n", other)
    assert load_settings(other).tenant == "acme"
    assert load_settings(other / "mine.yaml").tenant == "mine"
    assert load_settings(other / "mine.yaml").folder == other
    with pytest.raises(ConfigError, match=r"nowhere does not exist: name a folder or its retinue\.yaml"):
        load_settings(project / "nowhere")


def test_the_environment_wins_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_TENANT", "env")
    monkeypatch.setenv("RETINUE_ACTORS__WORKERS", "7")
    monkeypatch.setenv("RETINUE_MODULES", '["one", "two.three"]')
    settings = configure("tenant: file\nactors:\n  workers: 3\n  runs: 2\n")
    assert settings.tenant == "env"
    assert (settings.actors.workers, settings.actors.runs) == (7, 2)
    assert settings.modules == ("one", "two.three")


def test_settings_travel_as_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configure("modules: [agents]\nbudget: {usd: 0.1}\nmodels: {prices: {'openai:x': [0.1, 2]}}\n")
    monkeypatch.setenv("RETINUE_TENANT", "of another process")
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_money_is_decimal_to_the_micro_dollar() -> None:
    settings = configure("budget: {usd: 0.1}\nmodels: {prices: {'openai:x': [0.1, 2]}}\n")
    assert settings.budget.micros == 100_000
    assert settings.models.prices == {"openai:x": (Decimal("0.1"), Decimal(2))}


def test_paths_are_relative_to_the_project(project: Path) -> None:
    settings = configure("data: state\npolicy: {folder: rules, kill_switch: STOP}\n")
    assert settings.data_folder == project / "state"
    assert settings.policy_folder == project / "rules"
    assert settings.kill_switch == project / "STOP"


def test_the_policy_folder_is_used_when_it_is_there(project: Path) -> None:
    (project / "policy").mkdir()
    assert load_settings().policy_folder == project / "policy"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("tenant: a\nmax_tool_hop: 3\n", 2, ["no key 'max_tool_hop'", "did you mean 'max_tool_hops'?"]),
        ("actors:\n  worker: 3\n", 2, ["no key 'actors.worker'", "did you mean 'actors.workers'"]),
        ("steps: 3\n", 1, ["no key 'steps'", "did you mean 'store' or 'budget.steps'?"]),
        ("\nzebra: 3\n", 2, ["no key 'zebra'", "the keys here are modules, data"]),
        ("modules: agents\n", 1, ["key 'modules': must be a list", 'got "agents"']),
        ("modules: [a,\n  agents.py]\n", 1, ["'agents.py' is no import path", "without .py"]),
        ("actors:\n  runs: 1\n  workers: many\n", 3, ["key 'actors.workers'", "integer", 'got "many"']),
        ("actors: {workers: 0}\n", 1, ["key 'actors.workers'", "greater than or equal to 1"]),
        ("actors: {pools: {gpu1: {min: 5, max: 2}}}\n", 1, ["'actors.pools.gpu1'", "min 5 is more than max 2"]),
        ("actors: {pools: {runs: {min: 0}}}\n", 1, ["runs.min is 0", "leave it out"]),
        ("actors: {pools: {gpu1: {mx: 2}}}\n", 1, ["no key 'actors.pools.gpu1.mx'", "'actors.pools.gpu1.max'"]),
        ("budget: 3\n", 1, ["key 'budget': must hold keys of its own"]),
        ("policy:\n", 1, ["key 'policy': must hold keys of its own"]),
        ("budget:\n  hops: 3\n", 1, ["`max_tool_hops`"]),
        ("durability: fast\n", 1, ["key 'durability'", "'normal' or 'strict'"]),
        ("otlp: here\n", 1, ["an address such as http://localhost:4318"]),
        ("blobs: shared/folder\n", 1, ["'blobs'", "must be s3://bucket/prefix or file:///shared/folder"]),
        ("blobs: s3://key:secret@bucket/x\n", 1, ["'blobs'", "without a key in it", "(got a value that is not shown)"]),
        ("traces:\n  archive: s3://key:secret@bucket/x\n", 2, ["'traces.archive'", "(got a value that is not shown)"]),
        ("traces:\n  archive: out\n", 2, ["'traces.archive'", "must be s3://bucket/prefix or file:///shared/folder"]),
        ("alerts:\n  webhook: here\n", 2, ["an address such as https://hooks.example.com"]),
        ("alerts:\n  command: ['']\n", 2, ["must begin with a program"]),
        ("alerts:\n  every: soon\n", 2, ["key 'alerts.every'", "soon"]),
        ("traces:\n  memory_limit: much\n", 2, ["a size such as 512MB or 1GB"]),
        ("models: {prices: {'openai:x': [1]}}\n", 1, ["models.prices.openai:x", "a value is missing"]),
        ("tenant: a\ncluster: b\ntenant: c\n", 3, ["key 'tenant' stands here and on line 1"]),
        ("actors:\n  runs: 1\n  runs: 2\n", 3, ["key 'actors.runs' stands here and on line 2"]),
        ("tenant: a\ndata: &x b\nprincipal: *x\n", 3, ["aliases (*name) are not taken"]),
        ("tenant: [a\n", 2, ["expected ',' or ']'"]),
        ("tenant: a\n\tdata: b\n", 2, ["cannot start any token"]),
        ("- a\n", 1, ["`key: value` lines, not a seq"]),
        ("1: 2\n", 1, ["key '1' is not text"]),
    ],
)
def test_a_mistake_names_file_line_key_and_remedy(project: Path, text: str, line: int, words: list[str]) -> None:
    message = refuse(text)
    assert message.startswith(f"{project / 'retinue.yaml'} line {line}")
    assert [word for word in words if word not in message] == []


def test_all_mistakes_are_told_in_the_order_of_their_lines() -> None:
    lines = refuse("modules: agents\nzebra: 1\nactors:\n  workers: many\n").splitlines()
    assert [line.split(" line ")[1].split(":")[0] for line in lines] == ["1", "2", "4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"tenant: \xff\n", "is not UTF-8: save the file as UTF-8"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_text_is_refused(text: bytes, words: str) -> None:
    assert words in refuse(text)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RETINUE_ACTORS__WORKERS", "many", ["environment variable RETINUE_ACTORS__WORKERS: key 'actors.workers'"]),
        ("RETINUE_ACTORS__WORKER", "3", ["sets no key", "did you mean RETINUE_ACTORS__WORKERS"]),
        ("RETINUE_MODULES", "agents", ["RETINUE_MODULES is not JSON", '["agents"]']),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    message = refuse("actors: {workers: 2}\n")
    assert [word for word in words if word not in message] == []
