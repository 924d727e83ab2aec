"""Facts that rules judge, computed before the rule engine: JSON values sorted by kind, paths, hosts.

Pure functions. The engine has no floats and no null and skips a rule that meets a value of the wrong kind,
so every value is sorted here and what fits no kind stays visible by name. Knows no rule and no request.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import unquote

KINDS = ("numbers", "decimals", "texts", "flags", "lists", "paths", "hosts")

Fact = int | str | bool | tuple[str, ...]
"""A value as rules see it; a decimal is text with four digits after the point."""

MAX_DEPTH = 32
MAX_LEAVES = 10_000

_LONG = 2**63
_DECIMAL_STEP = Decimal("0.0001")
_DECIMAL_LIMIT = Decimal(_LONG - 1) * _DECIMAL_STEP

_AUTHORITY = re.compile(r"//([^\s/?#]*)")
_BROKEN_URL = re.compile(r"(?i)\b(?:https?|wss?|ftp):(?!//[^\s/\\?#])")
_LONE_URL = re.compile(r"(?i)\s*[a-z][a-z0-9+.-]*://")
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_.-]+")


class Unclear(ValueError):
    """A value cannot be judged; the message says which and why."""


@dataclass(slots=True)
class Facts:
    """Values by kind, then by name. A name without a value of some kind cannot be read as that kind.

    `derived` are names that lists add (`items[].count`).
    """

    kinds: dict[str, dict[str, Fact]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    names: set[str] = field(default_factory=set)
    derived: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    hosts_clear: bool = True

    def put(self, kind: str, name: str, fact: Fact) -> None:
        """Record one value of one kind."""
        self.kinds[kind][name] = fact

    def find_unsorted(self) -> list[str]:
        """Names whose value fits no kind at all."""
        sorted_names = set().union(*self.kinds.values())
        return sorted(self.names - sorted_names)


def sort_values(values: Mapping[str, object]) -> Facts:
    """Sort JSON values by kind.

    A nested value is named by its path: `customer.country`, `items[].price` (all prices of a list). A list
    of texts is a value of kind `lists`; a list of numbers gives `NAME.min` and `NAME.max`; each list gives
    `NAME.count`. Null is absent. Whole numbers that fit 64 bits are `numbers`; every number that fits is also
    a decimal, rounded to four digits. Raises Unclear when values are nested deeper than 32 or hold more than
    10,000 leaves. Two values with one name (`{"a.b": 1, "a": {"b": 2}}`) are of no kind.
    """
    facts = Facts()
    single: dict[str, object] = {}
    several: dict[str, list[object]] = {}
    clashing: set[str] = set()
    for count, (name, value, is_item) in enumerate(_flatten("", values, 0)):
        if count >= MAX_LEAVES:
            raise Unclear(f"more than {MAX_LEAVES:,} values in one call")
        if is_item:
            several.setdefault(name, []).extend([] if value is None else [value])
        elif name in single:
            clashing.add(name)
        else:
            single[name] = value
    for name, value in single.items():
        if value is not None:
            _sort_single(facts, name, value)
    for name, items in several.items():
        clashing |= (facts.names | facts.derived) & {name, *_derived(name)}
        _sort_several(facts, name, items)
    _withdraw(facts, clashing)
    return facts


def _withdraw(facts: Facts, names: set[str]) -> None:
    for found in facts.kinds.values():
        for name in names:
            found.pop(name, None)
    facts.names |= names


def normalize_path(text: str) -> str | None:
    """The path without `.`, `..` and doubled slashes, by its letters alone (links are not followed).

    A `file:` address gives its path. None for what is no path: empty, or with a NUL character.
    """
    if text.lower().startswith("file:"):
        text = unquote(re.sub(r"(?i)^file:(?://(?:localhost)?(?=/))?", "", text))
    if not text or "\0" in text:
        return None
    return re.sub(r"^//+", "/", posixpath.normpath(text))


def find_hosts(text: str) -> set[str] | None:
    """Hosts of all addresses in a text, lower case, without user, port and final dot.

    None when an address is written so that programs disagree on its host (backslashes, escapes, breaks).
    """
    if "//" not in text and ":" not in text:
        return set()
    if _BROKEN_URL.search(text) or (_LONE_URL.match(text) and re.search(r"\s", text.strip())):
        return None
    hosts = [_clean_host(found.group(1)) for found in _AUTHORITY.finditer(text)]
    return None if None in hosts else {host for host in hosts if host}


def _clean_host(authority: str) -> str | None:
    if "\\" in authority:
        return None
    host = authority.rsplit("@", 1)[-1].rstrip(".,;:)}>'\"`*")
    bare = re.sub(r":\d*$", "", host if host.startswith("[") else host.rstrip("]"))
    if not bare.isascii():
        try:
            bare = bare.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    bare = bare.lower().rstrip(".")
    return bare if not bare or _HOST.fullmatch(bare) else None


_Leaf = tuple[str, object, bool]


def _flatten(name: str, value: object, depth: int, inside: bool = False) -> Iterator[_Leaf]:
    """Name, value and "is an item of a list" of every leaf; an empty list gives None as its item."""
    if depth > MAX_DEPTH:
        raise Unclear(f"{name!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(f"{name}.{key}" if name else str(key), part, depth + 1, inside)
    elif isinstance(value, list | tuple):
        if not value:
            yield f"{name}[]", None, True
        for part in value:
            yield from _flatten(f"{name}[]", part, depth + 1, True)
    else:
        yield name, value, inside


def _sort_single(facts: Facts, name: str, value: object) -> None:
    facts.names.add(name)
    if isinstance(value, bool):
        facts.put("flags", name, value)
    elif isinstance(value, int | float):
        _sort_number(facts, name, value)
    elif isinstance(value, str):
        facts.put("texts", name, value)
        path = normalize_path(value)
        if path is not None:
            facts.put("paths", name, path)
        _sort_hosts(facts, name, [value])


def _derived(name: str) -> set[str]:
    return {f"{name}.count", f"{name}.min", f"{name}.max"}


def _sort_several(facts: Facts, name: str, items: list[object]) -> None:
    facts.names.add(name)
    facts.derived |= _derived(name) if items else {f"{name}.count"}
    facts.put("numbers", f"{name}.count", len(items))
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) == len(items):
        facts.put("lists", name, tuple(sorted(set(texts))))
    if texts or not items:
        _sort_hosts(facts, name, texts)
    numbers = [item for item in items if isinstance(item, int | float) and not isinstance(item, bool)]
    if numbers and len(numbers) == len(items) and all(math.isfinite(number) for number in numbers):
        _sort_number(facts, f"{name}.min", min(numbers))
        _sort_number(facts, f"{name}.max", max(numbers))


def _sort_number(facts: Facts, name: str, number: int | float) -> None:
    if isinstance(number, float) and not math.isfinite(number):
        return
    if number == int(number) and -_LONG <= int(number) < _LONG:
        facts.put("numbers", name, int(number))
    if abs(number) <= _DECIMAL_LIMIT:
        facts.put("decimals", name, str(Decimal(repr(number)).quantize(_DECIMAL_STEP)))


def _sort_hosts(facts: Facts, name: str, texts: list[str]) -> None:
    hosts: set[str] = set()
    for text in texts:
        found = find_hosts(text)
        if found is None:
            facts.hosts_clear = False
            return
        hosts |= found
    facts.put("hosts", name, tuple(sorted(hosts)))
    facts.hosts |= hosts
