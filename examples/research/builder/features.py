"""Web-platform features read from the data file of `@mdn/browser-compat-data`, and which of them get a page.

Owns names, kinds and support statements. Knows no pages and no questions. Selection is deterministic: a hash of
the feature's path orders the candidates, so another release of the data changes as few pages as possible.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

BIG_FOUR = ("chrome", "edge", "firefox", "safari")
DESKTOP = (*BIG_FOUR, "opera", "ie")
MOBILE = ("chrome_android", "firefox_android", "opera_android", "safari_ios", "samsunginternet_android")
RUNTIMES = ("nodejs", "deno", "bun")
OLDEST = "2015-01-01"
"""Features that Chrome had before this day get no page: their versions are mostly guesses."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of feature: where it stands in the data, how deep, how many pages, and what it is called."""

    root: str
    depths: tuple[int, ...]
    pages: int
    area: str
    noun: str


KINDS = (
    Kind("javascript.builtins", (1, 2), 44, "JavaScript built-ins", ""),
    Kind("css.properties", (1,), 34, "CSS properties", "the CSS property"),
    Kind("css.selectors", (1,), 16, "CSS selectors", "the CSS selector"),
    Kind("css.at-rules", (1,), 8, "CSS at-rules", "the CSS at-rule"),
    Kind("css.types", (1, 2), 9, "CSS values", "the CSS function"),
    Kind("html.global_attributes", (1,), 4, "HTML global attributes", "the HTML attribute"),
    Kind("html.elements", (1,), 3, "HTML elements", "the HTML element"),
    Kind("http.headers", (1,), 8, "HTTP headers", "the HTTP header"),
    Kind("api", (1,), 26, "Web APIs", "the interface"),
)


class Support(NamedTuple):
    """One statement of one browser: `version` is a plain version with a release day, or `flaw` says what it is."""

    browser: str
    version: str
    date: str
    flaw: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a feature that is followed on its own: its description and the version in each big browser."""

    name: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """One page's worth of data; `name` is written as code, `path` is where the data has it."""

    path: str
    name: str
    kind: Kind
    slug: str
    about: dict[str, Any]
    support: dict[str, Support]
    notes: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    @property
    def phrase(self) -> str:
        """How prose names it: `` the CSS property `gap` ``."""
        return f"{self.kind.noun} `{self.name}`".strip()

    def clean(self, browser: str) -> Support | None:
        """The browser's support when it is complete and dated."""
        support = self.support.get(browser)
        return support if support and support.flaw is None else None


class Data(NamedTuple):
    """The parsed data file with its version."""

    tree: dict[str, Any]
    version: str

    def browser_name(self, browser: str) -> str:
        return str(self.tree["browsers"][browser]["name"])

    def release_date(self, browser: str, version: str) -> str:
        """The day as YYYY-MM-DD, empty when the data has none or the release is still to come."""
        release = self.tree["browsers"][browser]["releases"].get(version, {})
        is_out = release.get("status") in ("retired", "current", "esr")
        return str(release.get("release_date", "")) if is_out else ""


def load_data(package: Path) -> Data:
    """Read `data.json`, or the unpacked package folder that holds it."""
    path = package / "data.json" if package.is_dir() else package
    tree = json.loads(path.read_text(encoding="utf-8"))
    return Data(tree, str(tree["__meta"]["version"]))


def select_features(data: Data) -> list[Feature]:
    """The features that get a page, in the order of their slugs: one for each web feature and kind."""
    chosen: dict[str, Feature] = {}
    for kind in KINDS:
        groups: dict[str, Feature] = {}
        for feature in _candidates(data, kind):
            group = next(iter(web_feature_ids(feature)), feature.path)
            best = groups.get(group)
            if best is None or (len(feature.path), feature.path) < (len(best.path), best.path):
                groups[group] = feature
        names = {feature.name.lower() for feature in chosen.values()}
        fresh = [feature for feature in groups.values() if feature.name.lower() not in names]
        for feature in sorted(fresh, key=_lot)[: kind.pages]:
            chosen[feature.slug] = feature
    return [chosen[slug] for slug in sorted(chosen)]


def web_feature_ids(feature: Feature) -> list[str]:
    """Ids of the web features it belongs to, snapshots left out."""
    tags = (tag.removeprefix("web-features:") for tag in feature.about.get("tags", []))
    return [tag for tag in tags if not tag.startswith("snapshot:")]


def plain(markup: str) -> str:
    """A description or note as one line of Markdown without links, code in backticks."""
    text = re.sub(r"</?code>", "`", markup)
    text = re.sub(r"<[^<>`]+>", "", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    return " ".join(html.unescape(text).split())


def _lot(feature: Feature) -> str:
    return hashlib.sha256(feature.path.encode()).hexdigest()


def _candidates(data: Data, kind: Kind) -> Iterator[Feature]:
    node = data.tree
    for step in kind.root.split("."):
        node = node[step]
    for path, found in _walk(node, (), max(kind.depths)):
        about = found.get("__compat")
        if about and len(path) in kind.depths and _is_standard(about):
            name = _name_of(kind, path, about)
            if name:
                feature = _read_feature(data, kind, path, name, found)
                if _is_well_supported(feature):
                    yield feature


def _walk(node: dict[str, Any], path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for key, child in node.items():
        if isinstance(child, dict) and not key.startswith("__"):
            yield (*path, key), child
            if len(path) + 1 < depth:
                yield from _walk(child, (*path, key), depth)


def _is_standard(about: dict[str, Any]) -> bool:
    status = about.get("status", {})
    return bool(status.get("standard_track")) and not status.get("deprecated") and not status.get("experimental")


def _is_well_supported(feature: Feature) -> bool:
    found = [feature.clean(browser) for browser in BIG_FOUR]
    return all(found) and all(support.date >= OLDEST for support in found if support)


def _read_feature(data: Data, kind: Kind, path: tuple[str, ...], name: str, node: dict[str, Any]) -> Feature:
    about = node["__compat"]
    stem = kind.root.split(".")[0]
    slug = f"{stem}/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"
    if kind.root == "css.selectors":
        slug += "-selector"
    support: dict[str, Support] = {}
    notes: list[tuple[str, str]] = []
    for browser in (*DESKTOP, *MOBILE, *RUNTIMES):
        statements = about["support"].get(browser)
        if statements:
            statements = statements if isinstance(statements, list) else [statements]
            support[browser] = _read_statement(data, browser, statements[0])
            notes += [(browser, note) for note in _read_notes(statements)]
    parts = tuple(sorted(_read_parts(data, path[-1], node), key=lambda part: part.name))
    return Feature(".".join((kind.root, *path)), name, kind, slug, about, support, tuple(notes), parts)


_FLAWS = ("prefix", "alternative_name", "flags", "partial_implementation", "version_removed")


def _read_statement(data: Data, browser: str, statement: dict[str, Any]) -> Support:
    version = statement.get("version_added")
    date = data.release_date(browser, version) if isinstance(version, str) else ""
    flawed = not date or any(statement.get(flaw) for flaw in _FLAWS)
    return Support(browser, version if isinstance(version, str) else "", date, statement if flawed else None)


def _read_notes(statements: list[dict[str, Any]]) -> Iterator[str]:
    for statement in statements:
        notes = statement.get("notes", [])
        for note in [notes] if isinstance(notes, str) else notes:
            text = plain(note)
            if len(text) <= 240:
                yield text if text.endswith((".", "!", "?")) else text + "."


def _read_parts(data: Data, parent: str, node: dict[str, Any]) -> Iterator[Part]:
    for key, child in node.items():
        about = child.get("__compat") if isinstance(child, dict) and not key.startswith("__") else None
        if about and key != parent:
            name = plain(about.get("description") or f"`{key}`").replace("|", "/")
            yield Part(name, tuple(_short(data, browser, about["support"].get(browser)) for browser in BIG_FOUR))


def _short(data: Data, browser: str, statements: Any) -> str:
    if not statements:
        return "unknown"
    first = statements[0] if isinstance(statements, list) else statements
    support = _read_statement(data, browser, first)
    if support.flaw is None:
        return support.version
    return "no" if first.get("version_added") is False else "partial"


def _name_of(kind: Kind, path: tuple[str, ...], about: dict[str, Any]) -> str:
    """The feature's name as code, empty when the data gives none that is code."""
    if kind.root == "javascript.builtins":
        return _builtin_name(path, about)
    if kind.root in ("css.selectors", "css.at-rules", "css.types"):
        described = re.fullmatch(r"<code>([^<>]+)</code>|`([^`]+)`", about.get("description", ""))
        name = html.unescape(described.group(1) or described.group(2)) if described else ""
        return name if kind.root != "css.types" or name.endswith("()") else ""
    if kind.root == "api" and not re.fullmatch(r"[A-Z][A-Za-z]+", path[-1]):
        return ""
    return f"<{path[-1]}>" if kind.root == "html.elements" else path[-1]


def _builtin_name(path: tuple[str, ...], about: dict[str, Any]) -> str:
    """`Array.prototype.at()` or `Array.from()`, as the fragment of its specification says."""
    if len(path) == 1:
        return path[0]
    specs = about.get("spec_url", "")
    fragment = (specs if isinstance(specs, str) else specs[0]).rpartition("#sec-")[2].lower()
    owner, member = path
    if owner == member or not re.fullmatch(r"[A-Za-z0-9]+", member) or owner in ("Intl", "Temporal"):
        return ""
    for written in (f"{owner}.prototype.{member}", f"{owner}.{member}"):
        if fragment == written.lower():
            return f"{written}()" if member[0].islower() else written
        if fragment == f"get-{written.lower()}":
            return written
    return ""
