"""Masks credentials in everything that is said before it becomes a row.

Owns the patterns of usual credentials and the masking of known secret values. Works on the JSON text of a
value, so one pass covers keys, values and JSON inside strings. Knows no table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import PydanticSerializationError, from_json, to_json

from retinue.runs.contracts import Json
from retinue.runs.errors import ConfigError

MASK = "[redacted]"
SHORTEST_SECRET = 6
LONGEST_TEXT = 262_144
"""Characters of JSON a column holds; longer values keep their head, the whole is in the journal."""
HEAD = 2_000
ESCAPES = 3
"""Levels of JSON in JSON in which a known value is still found."""

# A word begins here, also right after an escape such as \n in JSON text.
_EDGE = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtbf]))"
_WORDS = (
    "password passwd passphrase secret authorization credential api_key api-key apikey access_key access-key "
    "accesskey private_key private-key privatekey access_token access-token accesstoken refresh_token "
    "refresh-token refreshtoken auth_token auth-token authtoken"
)
_NAMES = "(?:" + "|".join(_WORDS.split()) + "s?)"


_CUT = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?" + re.escape(MASK))
"""A mask where an escape was, or the end of one."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A kind of credential: words of which one must occur (lower case), and the pattern then searched.

    The pattern's group 1, where it has one, is what stays in front of the mask.
    """

    hints: tuple[str, ...]
    pattern: re.Pattern[str]


def _kind(hints: str, pattern: str, flags: int = 0) -> Credential:
    return Credential(tuple(hints.split()), re.compile(pattern, flags))


CREDENTIALS = (
    _kind("-----begin", r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY.*?(?:END [A-Z ]{0,24}PRIVATE KEY-----|$)", re.S),
    _kind("akia asia", _EDGE + r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    _kind("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", _EDGE + r"(?:gh[opusr]_|github_pat_)[A-Za-z0-9_]{20,}"),
    _kind("glpat- npm_ hf_ pypi- dop_v1_", _EDGE + r"(?:glpat-|npm_|hf_|pypi-|dop_v1_)[A-Za-z0-9_-]{20,}"),
    _kind("xox xapp-", _EDGE + r"(?:xox[a-z]-|xapp-)[A-Za-z0-9-]{10,}"),
    _kind("sk- sk_ rk_", _EDGE + r"(?:sk-|[sr]k_(?:live|test)_)[A-Za-z0-9_-]{16,}"),
    _kind("aiza", r"AIza[A-Za-z0-9_-]{35}"),
    _kind("eyj", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    _kind("bearer basic", r"((?:bearer|basic)\s+)[A-Za-z0-9+/._~=-]{16,}", re.I),
    _kind("://", r"(://[^\s\"'\\/:@]{0,64}:)[^\s\"'\\/@]{3,128}(?=@)"),
    _kind(_WORDS, r'("[^"\\]{0,40}' + _NAMES + r'"\s*:\s*")(?:[^"\\]|\\.)+(?=")', re.I),
    _kind(_WORDS, r'(\\+"[^"\\]{0,40}' + _NAMES + r'\\+"\s*:\s*\\+")[^"\\]+', re.I),
    _kind(_WORDS, r"(" + _NAMES + r"\s{0,2}=\s{0,2}(?:\\*[\"'])?)[^\s\"'\\&;,]{6,}", re.I),
)


class Redactor:
    """Masks known values and usual credentials.

    `secrets` are exact values, at least 6 characters each; they are also found as JSON, as JSON in
    JSON and percent-encoded. `patterns` are further regular expressions. Raises ConfigError for what cannot be used.
    """

    def __init__(self, secrets: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        patterns = tuple(patterns)
        self._values = _forms(secrets)
        self._patterns = tuple(_compile(pattern) for pattern in patterns)
        self._suspect = _suspect(self._values, patterns)

    def text(self, text: str) -> str:
        """The text with every credential in it masked."""
        for value in self._values:
            text = text.replace(value, MASK)
        return self._usual(text)

    def _usual(self, text: str) -> str:
        lower = text.lower()
        for kind in CREDENTIALS:
            if any(hint in lower for hint in kind.hints):
                text = kind.pattern.sub(_mask, text)
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def json(self, value: Json) -> str | None:
        """The value as JSON text, masked and at most `LONGEST_TEXT` long; None stays None."""
        masked: str | None = self.documents([value])[0].as_py()
        return masked

    def texts(self, values: Sequence[str | None]) -> pa.Array:
        """A column of texts, masked; lone surrogates become question marks."""
        try:
            column = pa.array(values, pa.string())
        except UnicodeEncodeError:
            column = pa.array([clean(value) for value in values], pa.string())
        return self._replace(column, lambda place, text: self.text(text))

    def documents(self, values: Sequence[Json]) -> pa.Array:
        """A column of values as JSON text, masked, each at most `LONGEST_TEXT` characters long."""
        texts = [None if value is None else self._document(value) for value in values]
        return self._replace(pa.array(texts, pa.string()), lambda place, text: self._masked(values[place], text))

    def _replace(self, column: pa.Array, mask: Callable[[int, str], str]) -> pa.Array:
        """Mask what the fast search finds suspect; it searches whole columns without holding the GIL."""
        suspect = pc.indices_nonzero(pc.fill_null(pc.match_substring_regex(column, self._suspect), False)).to_pylist()
        if not suspect:
            return column
        texts = column.to_pylist()
        for place in suspect:
            texts[place] = mask(place, texts[place])
        return pa.array(texts, pa.string())

    def _document(self, value: Json) -> str:
        text = _dump(value)
        if len(text) <= LONGEST_TEXT:
            return text
        # Masked before it is cut: half a secret is not recognised any more.
        head = self.text(text[: HEAD * 4])[:HEAD]
        return _dump({"truncated": True, "characters": len(text), "head": head})

    def _masked(self, value: Json, text: str) -> str:
        masked = self.text(text)
        if masked == text or _is_whole(masked):
            return masked
        by_leaf = _dump(self._leaves(value if len(text) <= LONGEST_TEXT else from_json(text)))
        masked = self._usual(by_leaf)  # a name and what it stands for are two leaves
        return masked if _is_json(masked) else by_leaf

    def _leaves(self, value: Json) -> Json:
        """Mask leaf by leaf, where masking the text breaks the JSON: a secret that is a number, or looks like a part of
        an escape."""
        if isinstance(value, dict):
            return {self.text(clean(str(name))): self._leaves(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._leaves(part) for part in value]
        if isinstance(value, str):
            said = str(clean(value))
            inside = _document_in(said)
            return self.text(said) if inside is None else self._masked(inside, said)
        text = _dump(value)
        return value if self.text(text) == text else MASK


def _suspect(values: tuple[str, ...], patterns: tuple[str, ...]) -> str:
    """One expression (RE2) that matches wherever anything may have to be masked."""
    hints = sorted({hint for kind in CREDENTIALS for hint in kind.hints})
    suspect = "|".join([f"(?i:{'|'.join(map(re.escape, hints))})", *map(re.escape, values)])
    for pattern in patterns:
        suspect = f"{suspect}|(?:{pattern})"
        try:
            pc.match_substring_regex(pa.array([""]), suspect)
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f"redaction pattern {pattern!r} cannot be searched fast: {error}; leave out look-arounds and "
                "back-references"
            ) from None
    return suspect


def _forms(secrets: Iterable[str]) -> tuple[str, ...]:
    """The ways in which each value may be written, longest first."""
    forms: set[str] = set()
    for number, secret in enumerate(secrets, 1):
        if len(secret) < SHORTEST_SECRET:
            raise ConfigError(
                f"secret {number} has {len(secret)} characters: masking so short a value would mask ordinary "
                f"words; use one of at least {SHORTEST_SECRET}"
            )
        escaped = {secret}
        for _ in range(ESCAPES):
            forms |= escaped
            escaped = {form for text in escaped for form in (_dump(text)[1:-1], json.dumps(text)[1:-1])}
        forms |= escaped | {quote(secret, safe="")}
    return tuple(sorted(forms, key=len, reverse=True))


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"redaction pattern {pattern!r} is no regular expression: {error}") from None


def _mask(match: re.Match[str]) -> str:
    kept = match.group(1) if match.re.groups else ""
    return f"{kept}{MASK}"


def clean(value: Json) -> Json:
    """The value with lone surrogates replaced: they are no text that JSON or a column could hold."""
    if isinstance(value, dict):
        return {clean(str(name)): clean(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [clean(part) for part in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _dump(value: Json) -> str:
    try:
        return to_json(value, inf_nan_mode="strings", fallback=str).decode()
    except PydanticSerializationError:
        return _dump_unclean(value)


def _dump_unclean(value: Json) -> str:
    try:
        return to_json(clean(value), inf_nan_mode="strings", fallback=str).decode()
    except RecursionError:
        return '{"unreadable":"nested too deeply"}'


def _document_in(text: str) -> Json:
    """The object or list that a text is the JSON of; None for any other text."""
    try:
        found = from_json(text) if text.lstrip()[:1] in ("{", "[") else None
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _is_whole(masked: str) -> bool:
    """Whether it is JSON still, and so is the JSON in it: no mask stands in an escape."""
    return _CUT.search(masked) is None and _is_json(masked)


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True
