"""Redaction: credentials never become rows, ordinary text stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.traces.books import Book, Run
from tests.unit.traces.conftest import Open, drain

from retinue.runs.contracts import Status, StopReason
from retinue.runs.errors import ConfigError
from retinue.traces.redaction import LONGEST_TEXT, MASK, Redactor

# Put together here, so that no scanner takes these texts for real credentials.
CREDENTIALS = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "github_pat_" + "11ABCDEFG0123456789_abcdefghij",
    "glpat-" + "abcdefghij1234567890",
    "npm_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "xoxb-" + "123456789012-abcdefghijkl",
    "sk-" + "proj-abcdefghijklmnop1234",
    "sk_live_" + "abcdefghijklmnop1234",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA",
]


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("frame", ["{}", "key: {}.", "line\n{}\nline", '"{}"', "\\n{}"])
def test_usual_credentials_are_masked_wherever_they_stand(credential: str, frame: str) -> None:
    said = frame.replace("{}", credential)
    for value in (said, {"deep": [{"text": said}]}, {"raw": json.dumps({"x": said})}, {said: 1}):
        masked = Redactor().json(value)
        assert masked is not None
        assert credential[4:] not in masked.replace("\\n", "\n").replace("\\\\n", "\n")
        assert MASK in masked
        json.loads(masked)


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"password": 'correct "horse" battery'}, {"password": MASK}),
        ({"db_password": "x", "API-Key": "y", "user": "bob"}, {"db_password": MASK, "API-Key": MASK, "user": "bob"}),
        ({"raw": '{"client_secret": "a b c"}'}, {"raw": f'{{"client_secret": "{MASK}"}}'}),
        ("postgres://bob:s3cr3t@db/main", f"postgres://bob:{MASK}@db/main"),
        ("Authorization: Bearer abcdefghijklmnop1234", f"Authorization: Bearer {MASK}"),
        ("PASSWORD=abcdefgh;user=bob", f"PASSWORD={MASK};user=bob"),
    ],
)
def test_only_the_secret_part_is_masked(value: Any, masked: Any) -> None:
    text = Redactor().json(value)
    assert text is not None
    assert json.loads(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "a task-force-one-two-three-four-five-six",
        "The secretary forgot the keys and 12 tokens: see https://example.org/a:b@c",
        "tokens=1234567 and max_tokens: 512",
        "sk-short",
        "Basic English, bearer of news",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert json.loads(Redactor().json({"t": text}) or "") == {"t": text}
    assert Redactor().text(text) == text


@given(secret=st.text(min_size=6, max_size=40), before=st.text(), after=st.text(), deep=st.integers(0, 2))
def test_known_values_are_masked_in_every_writing(secret: str, before: str, after: str, deep: int) -> None:
    value: Any = {"said": before + secret + after}
    for _ in range(deep):
        value = {"raw": json.dumps(value, ensure_ascii=False)}
    text = Redactor([secret]).json(value)
    found = json.loads(text or "")
    for _ in range(deep):
        found = json.loads(found["raw"])
    assert secret not in found["said"] or secret in MASK
    assert MASK in found["said"]


@pytest.mark.parametrize(("secret", "said"), [("000000", "\0" + "000000"), ("nabcde", "\nabcde nabcde")])
@pytest.mark.parametrize("deep", [0, 1, 2])
def test_a_value_that_looks_like_a_part_of_an_escape_breaks_no_json(secret: str, said: str, deep: int) -> None:
    value: Any = {"said": said, "password": "quite another"}
    for _ in range(deep):
        value = {"raw": json.dumps(value)}
    found = json.loads(Redactor([secret]).json(value) or "")
    for _ in range(deep):
        found = json.loads(found["raw"])
    assert found == {"said": said.replace(secret, MASK), "password": MASK}


def test_a_secret_that_is_a_number_is_masked_and_the_json_stays_json() -> None:
    text = Redactor(["12345678"]).json({"pin": 12345678, "other": [1, 2.5, None, True], "said": "pin 12345678"})
    assert json.loads(text or "") == {"pin": MASK, "other": [1, 2.5, None, True], "said": f"pin {MASK}"}


def test_a_percent_encoded_secret_is_masked() -> None:
    assert Redactor(["p@ss word!"]).text("https://x/?q=p%40ss%20word%21") == f"https://x/?q={MASK}"


def test_long_values_are_masked_before_they_are_cut() -> None:
    secret = "the-known-value"
    text = Redactor([secret]).json({"t": ("x" * 1_990) + secret * 3 + "y" * LONGEST_TEXT})
    found = json.loads(text or "")
    assert found["truncated"] is True
    assert secret[:4] not in found["head"]


def test_further_patterns_are_masked() -> None:
    assert Redactor(patterns=[r"EMP-\d{4}"]).json({"who": "EMP-1234"}) == f'{{"who":"{MASK}"}}'


@pytest.mark.parametrize(
    ("secrets", "patterns", "message"),
    [
        (["abcdef", "abc"], [], "secret 2 has 3 characters"),
        ([], ["(unclosed"], "'(unclosed' is no regular expression"),
        ([], ["(?<=a)b"], "leave out look-arounds"),
    ],
)
def test_what_cannot_be_masked_is_refused_without_showing_it(
    secrets: list[str], patterns: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Redactor(secrets, patterns)
    assert message in str(refused.value)
    assert "abc:" not in str(refused.value)


@pytest.mark.promise("I6")
async def test_no_column_of_any_table_holds_a_secret(open_traces: Open) -> None:
    secret = "the-known-value"
    book = Book()
    run = Run(book, "leaky").accept({"said": secret}).lease()
    calls = [{"id": "c", "name": "search", "arguments": {"q": secret}}]
    run.think(0, calls, text=secret)
    run.call(0, "search", {"q": secret}, {"found": [secret]})
    error = {"reason": "tool_failure", "code": "raised", "message": f"refused {secret}"}
    run.call(1, "search", {"q": secret}, None, result="error", error=error)
    asked = run.intent("approval", "tool", "a#0", {"prompt": f"send {secret}?"}, prompt=f"send {secret}?")
    run.write(asked, run.outcome(asked, {"note": secret}))
    topics = "stage decision context observation validation handoff dead_letter policy own"
    for topic in topics.split():
        verdict = {"outcome": "deny", "reason": secret, "rules": [{"rule": "r", "reason": secret}]}
        facts = {"errors": [secret], "message": secret, "summary": secret, "decision": verdict, "note": secret}
        run.write(run.record(topic, {"messages": [secret], "data": secret, "any": secret}, **facts))
    run.finish(Status.completed, StopReason.success, {"answer": secret}, follow_ups=[secret], note=secret)
    traces = await open_traces(book, redactor=Redactor([secret]))
    await drain(traces)
    masked = 0
    tables = (await traces.query("SELECT table_name FROM duckdb_tables()"))["table_name"].to_pylist()
    for table in tables:
        text = json.dumps((await traces.query(f"FROM {table}")).to_pylist(), default=str)
        assert secret not in text, table
        masked += text.count(MASK)
    assert masked > 25
