"""What a snapshot leaves out and refuses: patterns, known secret values, and limits of size.

Pure. Patterns are those of shells: `*` and `?` within a name, `**/` for any folders; one without a slash means a name
anywhere, one that ends in a slash a directory. Says a secret's place and never its value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from retinue.runs.errors import InvalidInput
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.snapshots.trees import Attributes

SHORTEST_SECRET = 6
"""Bytes; a shorter value would be found by chance in most binaries and is not looked for."""
_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of one tree, and of what a store keeps of a tenant. Bytes and counts; None: not limited."""

    bytes: int | None = None
    files: int | None = None
    file_bytes: int | None = None
    depth: int | None = 100
    store_bytes: int | None = None

    def check(self, limit: str, value: int, path: str = "", of: str = "the workspace") -> None:
        """SandboxRefused with code `quota` when `value`, of a path or of all, is above the limit of this name."""
        most: int | None = getattr(self, limit)
        if most is not None and value > most:
            what, remedy = _WORDS[limit]
            where = f"{path[:200]!r} in {of}" if path else of
            raise SandboxRefused(
                f"quota: {where} has {value} {what}, the limit {limit} is {most}; {remedy}", code="quota"
            )


_WORDS = {
    "bytes": ("bytes", "remove files, omit them by a pattern, or raise the limit"),
    "files": ("files and folders", "remove some, omit them by a pattern, or raise the limit"),
    "file_bytes": ("bytes", "remove or split it, omit it by a pattern, or raise the limit"),
    "depth": ("levels of folders", "remove the folder, omit it by a pattern, or raise the limit"),
    "store_bytes": ("bytes of snapshots of its tenant", "delete snapshots and collect, or raise the limit"),
}


@dataclass(frozen=True)
class Rules:
    """What holds for one snapshot. `secrets` are values that must not be in it."""

    omit: tuple[str, ...] = ()
    secrets: tuple[bytes, ...] = ()
    quota: Quota = Quota()

    def omits(self, path: str, is_folder: bool) -> str | None:
        """The pattern that leaves this path out."""
        if not self.omit:
            return None
        found = self._pattern.fullmatch(path + "/" if is_folder else path)
        return None if found is None else self.omit[(found.lastindex or 1) - 1]

    def check_content(self, data: bytes, path: str) -> None:
        """SandboxRefused with code `secret_in_snapshot` when a secret value is in a file's data."""
        if any(secret in data for secret in self._values):
            raise _found_secret(f"the content of {path!r}")

    def check_name(self, path: str, target: str = "") -> None:
        """The same for the last name of a path and for the target of a symlink."""
        folder, _, name = path.rpartition("/")
        if self._values and self._holds(name + "\n" + target):
            raise _found_secret(f"a name or the target of a symlink in the folder {folder or '.'!r}")

    def check_attributes(self, attributes: Attributes, path: str) -> None:
        """The same for user attributes."""
        if any(self._holds(name) or any(secret in value for secret in self._values) for name, value in attributes):
            raise _found_secret(f"an attribute of {path!r}")

    @cached_property
    def overlap(self) -> int:
        """Bytes of a chunk that have to be looked at again together with the next one."""
        return max((len(secret) - 1 for secret in self._values), default=0)

    def _holds(self, text: str) -> bool:
        raw = text.encode("utf-8", "surrogateescape")
        return any(secret in raw for secret in self._values)

    @cached_property
    def _values(self) -> tuple[bytes, ...]:
        return tuple({secret for secret in self.secrets if len(secret) >= SHORTEST_SECRET})

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_translate, self.omit)), re.DOTALL)


def _found_secret(where: str) -> SandboxRefused:
    return SandboxRefused(
        f"{where} holds the value of a known secret: no snapshot was made; remove it, or leave the file out by a "
        "pattern of the manifest",
        code="secret_in_snapshot",
    )


def _translate(pattern: str) -> str:
    """A pattern as a group over paths, those of directories with a slash at the end; InvalidInput for a bad one."""
    text = pattern.rstrip("/")
    body = "".join(_piece(token) for token in _GLOB.findall(text.removeprefix("/")))
    anywhere = "" if "/" in text else "(?:.*/)?"
    whole = f"({anywhere}{body}{'/' if pattern.endswith('/') else '/?'})"
    try:
        re.compile(whole)
    except re.error as error:
        raise InvalidInput(f"omit: {pattern!r} is no pattern ({error}): write * ? ** or [a-z]") from None
    return whole


def _piece(token: str) -> str:
    if token == "**/":
        return "(?:.*/)?"
    if token == "**":
        return ".*"
    if token in ("*", "?"):
        return "[^/]" + token.replace("?", "")
    if len(token) > 2 and token[0] == "[":
        inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"[^/{inner[1:]}]" if inner[0] == "!" else f"[{inner}]"
    return re.escape(token)
