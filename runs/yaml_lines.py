"""YAML with the line of every key, read strictly: plain data only, one document, no key twice, no aliases.

Owns syntax and lines. Knows no setting: what the keys mean is for those to say who read a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from retinue.runs.contracts import Json
from retinue.runs.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a value stands: names of mappings and places in lists, outermost first."""


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file says, and the line (from 1) on which each value's key stands."""

    path: Path
    values: dict[str, Json] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, place: KeyPath) -> int | None:
        """The line of a place, or of the nearest place around it; None when the file does not have it."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place[:-1]
        return None


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases: a few of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not taken: write it out", mark)
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> YamlFile:
    """Read a file that holds one mapping; an empty file is an empty mapping.

    Raises ConfigError naming file, line, key and remedy: not readable, not UTF-8, not YAML, a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    try:
        return _parse(path, text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_explain(path, error)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML that can be read: {said}; correct the file") from None


def _parse(path: Path, text: str) -> YamlFile:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return YamlFile(path)
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1
            raise ConfigError(
                f"{path} line {line}: the file must hold `key: value` lines, not a {_kind(node)}; correct it (`retinue "
                "init` writes a project to begin with)"
            )
        lines: dict[KeyPath, int] = {}
        _walk(path, node, (), lines)
        values: dict[str, Any] = loader.construct_document(node)
        return YamlFile(path, values, lines)
    finally:
        loader.dispose()


def _walk(path: Path, node: yaml.Node, place: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _enter(path, key, place, lines)
            _walk(path, value, (*place, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*place, number)] = item.start_mark.line + 1
            _walk(path, item, (*place, number), lines)


def _enter(path: Path, key: yaml.Node, place: KeyPath, lines: dict[KeyPath, int]) -> None:
    line = key.start_mark.line + 1
    if key.tag != "tag:yaml.org,2002:str":
        shown = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
        raise ConfigError(f"{path} line {line}: key {shown!r} is not text; put it in quotes or correct it")
    inner = (*place, key.value)
    if inner in lines:
        name = ".".join(map(str, inner))
        raise ConfigError(
            f"{path} line {line}: key {name!r} stands here and on line {lines[inner]} already; keep one of them"
        )
    lines[inner] = line


def _kind(node: yaml.Node) -> str:
    return node.tag.rpartition(":")[2]


def _explain(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{path} line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
    context = f" ({error.context})" if error.context else ""
    return f"{place}: {error.problem}{context}; correct this line (values with `:` or `#` need quotes)"
