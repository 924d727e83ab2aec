"""Everything runnable in a project, found in its modules by name.

Owns the registry: what belongs to it, with the prompts read and the parts of patterns taken in, and what runs need
of the place they run in. Knows no model and no tool in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Protocol

from retinue.runs.definitions import AgentSpec, Definition, ToolLike, Workflow
from retinue.runs.errors import ConfigError, UnknownName
from retinue.runs.options import Prompt
from retinue.runs.resources import Resources, combined, pool_name

_OUT = ("shadow", "canary", "full")


class Remotes(Protocol):
    """Tools that are in no module: agents name them."""

    @property
    def tools(self) -> Mapping[str, ToolLike]:
        """All of them, by name."""
        ...

    def named(self, agent: str, name: str) -> Sequence[ToolLike]:
        """What a name in an agent's list stands for; nothing when it is none of theirs. ConfigError."""
        ...


class Registry:
    """Everything runnable in a project, by name. Two definitions of one name are refused."""

    def __init__(
        self, modules: Iterable[ModuleType], extra: Sequence[Definition] = (), remotes: Remotes | None = None
    ) -> None:
        self._remotes = remotes
        self._found: dict[str, Definition] = {}
        self._versions: dict[str, dict[str, Definition]] = {}
        self.tools: dict[str, ToolLike] = {} if remotes is None else dict(remotes.tools)
        for definition in extra:
            self._add(self._with_tools(definition))
        inner: list[tuple[Definition, ModuleType | None]] = [(part, None) for one in extra for part in _parts(one)]
        for module in modules:
            for value in list(vars(module).values()):
                if isinstance(value, AgentSpec | Workflow):
                    self._add(self._with_tools(_with_prompt(value, module)))
                    inner += [(part, module) for part in _parts(value)]
                elif isinstance(value, ToolLike) and not isinstance(value, type):
                    self.tools[value.capability.name] = value
        for part, home in inner:
            self._adopt(part, home)
        for definition in [*self._found.values(), *(one for each in self._versions.values() for one in each.values())]:
            self._link(definition)
        self._needs = {each.name: needs for each in self._found.values() if (needs := self._needed(each)) is not None}
        self.pools = {pool_name(needs): needs for needs in self._needs.values()}

    def get(self, name: str, version: str | None = None) -> Definition:
        """The definition, of this version where there are several; UnknownName lists close matches."""
        if name not in self._found:
            near = get_close_matches(name, self._found, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(self.names()) or 'none'}"
            raise UnknownName(
                f"there is no agent or workflow {name!r}: {hint}; `modules:` in retinue.yaml names where they are"
            )
        return self._versions.get(name, {}).get(version or "", self._found[name])

    def versions(self, definition: Definition) -> tuple[Definition, ...]:
        """All versions of a definition that stand side by side."""
        return tuple(self._versions.get(definition.name, {}).values()) or (definition,)

    def names(self) -> list[str]:
        """All names, sorted, without the runtime's own."""
        return sorted(name for name in self._found if not name.startswith("retinue."))

    def needs_of(self, name: str) -> Resources:
        """What runs of a definition need, its tools included; nothing for one that needs nothing or is unknown."""
        return self._needs.get(name, Resources())

    def pool_of(self, name: str) -> str | None:
        """The pool that runs of a definition have to be in; None when any will do."""
        return pool_name(self._needs[name]) if name in self._needs else None

    @property
    def sandboxes(self) -> dict[str, str]:
        """The manifest of each agent that has a sandbox, by the agent's name; of all its versions."""
        found = [*self._found.values(), *(one for each in self._versions.values() for one in each.values())]
        return {one.name: one.sandbox for one in found if isinstance(one, AgentSpec) and one.sandbox is not None}

    def _needed(self, definition: Definition) -> Resources | None:
        parts = [] if definition.needs is None else [("it", definition.needs)]
        for name in definition.tool_names if isinstance(definition, AgentSpec) else ():
            tool = self.tools.get(name)
            if tool is not None and tool.capability.needs is not None:
                parts.append((f"its tool {name!r}", tool.capability.needs))
        whole = combined(f"{definition.kind} {definition.name!r}", parts)
        return None if whole.empty else whole

    def _add(self, definition: Definition) -> None:
        known = self._found.get(definition.name)
        if known is not None and known.version != definition.version:
            self._stand_beside(known, definition)
            return
        self._found[definition.name] = definition

    def _stand_beside(self, known: Definition, other: Definition) -> None:
        """Two versions of one agent, each with a version of its own and at most one of them out for all."""
        beside = self._versions.setdefault(known.name, {known.version: known})
        for one in (*beside.values(), other):
            if not isinstance(one, AgentSpec) or one.explicit_version is None:
                raise ConfigError(
                    f"two definitions are named {known.name!r}: rename one of them; or, of agents, give each a "
                    "`version` and a `stage` of its own"
                )
            if (one.input, one.output, one.needs) != (known.input, known.output, known.needs):
                raise ConfigError(
                    f"the versions of agent {known.name!r} differ in `input`, `output` or `needs`: what calls it "
                    "cannot know which it gets, so give them the same"
                )
        beside[other.version] = other
        stages = [one.stage for one in beside.values()]
        if len(set(stages)) < len(stages):
            raise ConfigError(f"two versions of agent {known.name!r} are at stage {stages[-1]!r}: give each its own")
        self._found[known.name] = max(beside.values(), key=lambda one: _OUT.index(one.stage))

    def _adopt(self, part: Definition, module: ModuleType | None) -> None:
        """Take in what a pattern was composed of; a module may have it by name as well."""
        known = self._found.get(part.name)
        whole = self._with_tools(part)
        if known is not part and not (known is not None and (known == whole or _same_but_unread(whole, known))):
            self._add(whole if module is None else _with_prompt(whole, module))

    def _with_tools(self, definition: Definition) -> Definition:
        """An agent with the remote tools that it names, in the place of their names."""
        if self._remotes is None or not isinstance(definition, AgentSpec):
            return definition
        tools: list[ToolLike | str] = []
        for tool in definition.tools:
            found = self._remotes.named(definition.name, tool) if isinstance(tool, str) else ()
            tools += [one for one in found or (tool,) if one not in tools]
        return definition if tuple(tools) == definition.tools else replace(definition, tools=tuple(tools))

    def _link(self, definition: Definition) -> None:
        for follow_up in definition.follow_ups:
            if isinstance(follow_up, Workflow):
                self._add(follow_up)
        for part in definition.parts if isinstance(definition, Workflow) else ():
            if isinstance(part, str) and part not in self._found:
                known = ", ".join(self.names())
                raise UnknownName(f"workflow {definition.name!r} has the part {part!r}, which is not there: {known}")
        if isinstance(definition, AgentSpec):
            self.tools.update({t.capability.name: t for t in definition.tools if not isinstance(t, str)})


def _parts(definition: Definition) -> list[Definition]:
    """All that a definition is composed of, however deep."""
    direct = definition.parts if isinstance(definition, Workflow) else ()
    return [below for part in direct if not isinstance(part, str) for below in (part, *_parts(part))]


def _same_but_unread(part: Definition, known: Definition) -> bool:
    """True when `known` is `part` with the text of its prompt."""
    if not isinstance(part, AgentSpec) or not isinstance(known, AgentSpec):
        return False
    mine, read = part.instructions, known.instructions
    if not isinstance(mine, Prompt) or not isinstance(read, Prompt) or mine.name != read.name:
        return False
    return replace(part, instructions=read) == known


def _with_prompt(definition: Definition, module: ModuleType) -> Definition:
    if not isinstance(definition, AgentSpec) or not isinstance(definition.instructions, Prompt):
        return definition
    if definition.instructions.text:
        return definition
    path = Path(module.__file__ or ".").parent / "prompts" / f"{definition.instructions.name}.md"
    if not path.is_file():
        raise ConfigError(
            f"agent {definition.name!r} names prompt {definition.instructions.name!r}: there is no file {path}"
        )
    text = path.read_text(encoding="utf-8").strip()
    return replace(definition, instructions=Prompt(definition.instructions.name, text))
