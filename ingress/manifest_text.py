"""How a manifest reads on a terminal: what it makes, what it allows, who has looked at it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from retinue.ingress.pin_text import visible
from retinue.ingress.render import columns, counted, cut, duration
from retinue.runs.contracts import Json
from retinue.sandbox.manifests.loading import Loaded
from retinue.sandbox.manifests.pins import Change
from retinue.sandbox.manifests.previewing import Part
from retinue.sandbox.profiles import Limits, Profile

_LINE = 100
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_BYTES = frozenset({"memory", "file_bytes", "disk"})
_NETWORK = {"none": "no network", "listed": "reaches listed hosts", "host": "network of the host"}


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest that was looked at. `unset` are secrets that the environment here does not have; `parts` is None where
    it was not made, `refusal` says why its profile cannot be enforced here."""

    loaded: Loaded
    unset: tuple[str, ...] = ()
    parts: tuple[Part, ...] | None = None
    backend: str = ""
    enforced: dict[str, str] = field(default_factory=dict)
    refusal: str = ""

    def with_parts(self, parts: Sequence[Part], backend: str, enforced: dict[str, str], refusal: str) -> Checked:
        """With what was made and tried."""
        return replace(self, parts=tuple(parts), backend=backend, enforced=enforced, refusal=refusal)

    @property
    def usable(self) -> bool:
        """Whether a run here could have a sandbox of it now."""
        return not self.refusal and not self.loaded.changed and not self.unset


def checked_facts(checked: Checked) -> dict[str, Json]:
    """All of it as data."""
    loaded, manifest = checked.loaded, checked.loaded.manifest
    pinned = loaded.pinned
    return {
        **loaded.info.model_dump(mode="json"),
        "description": manifest.description,
        "usable": checked.usable,
        "pinned": None if pinned is None else {"by": pinned.by, "at": pinned.at, "version": pinned.version},
        "changes": [change.model_dump(mode="json") for change in loaded.changed],
        "unset": list(checked.unset),
        "permissions": loaded.profile.model_dump(mode="json"),
        "mounts": manifest.mounts,
        "exclude": list(manifest.exclude),
        "parts": None if checked.parts is None else [_part_facts(part) for part in checked.parts],
        "backend": checked.backend or None,
        "enforced": checked.enforced,
        "refusal": checked.refusal or None,
    }


def _part_facts(part: Part) -> dict[str, Json]:
    return {"place": part.place, "entries": part.entries, "bytes": part.bytes, "note": part.note}


def checked_text(checked: Checked) -> str:
    """All of it for people."""
    rows = [(name, text.splitlines()) for name, text in _rows(checked) if text]
    blocks = [f"{name if number == 0 else '':<12}{line}" for name, lines in rows for number, line in enumerate(lines)]
    return "\n".join([*blocks, *_parts(checked)])


def _rows(checked: Checked) -> Iterator[tuple[str, str]]:
    loaded, manifest, profile = checked.loaded, checked.loaded.manifest, checked.loaded.profile
    yield manifest.name, visible(manifest.description.strip()) or "no description"
    yield "version", f"{loaded.info.version}, revision {manifest.revision}"
    yield "review", pin_line(loaded)
    yield "profile", profile_text(profile, loaded.info.profile_digest)
    yield "limits", limits_text(profile.limits)
    yield "hosts", "\n".join(map(visible, profile.hosts))
    yield "sees", "\n".join(_seen(checked))
    yield "variables", ", ".join(f"{name}={visible(cut(text, 40))}" for name, text in manifest.environment.items())
    yield "secrets", ", ".join(f"{name} ({'not set' if name in checked.unset else 'set'})" for name in manifest.secrets)
    yield "left out", f"of snapshots: {', '.join(map(visible, manifest.exclude))}" if manifest.exclude else ""
    yield "crash", f"an exec that was cut off is {'' if loaded.info.replayable else 'not '}made again"
    yield "here", checked.refusal or _enforced_text(checked)


def _seen(checked: Checked) -> Iterator[str]:
    mounts = checked.loaded.manifest.mounts
    yield from (f"{visible(folder)} (${name}), read only" for name, folder in mounts.items())
    yield from (f"{visible(path)}, read only" for path in checked.loaded.profile.reads if path not in mounts.values())


def _enforced_text(checked: Checked) -> str:
    if not checked.backend:
        return ""
    whole = [demand for demand, said in checked.enforced.items() if said == "enforced"]
    rest = [f"{demand}: {said}" for demand, said in checked.enforced.items() if said != "enforced"]
    return "\n".join([f"{checked.backend} enforces {', '.join(whole) or 'nothing'}", *rest])


def _parts(checked: Checked) -> Iterator[str]:
    if checked.parts is None:
        return
    entries, size = sum(part.entries for part in checked.parts), sum(part.bytes for part in checked.parts)
    yield f"{'workspace':<12}{counted(entries, 'name')}, {size_text(size)}"
    if checked.parts:
        rows = [(visible(part.place), f"{part.entries:,}", size_text(part.bytes), part.note) for part in checked.parts]
        yield columns(("PLACE", "NAMES", "SIZE", ""), rows)


def pin_line(loaded: Loaded) -> str:
    """Who has reviewed it, and whether it is as it was then."""
    pinned = loaded.pinned
    if pinned is None:
        return f"nobody has: `retinue sandbox pin {loaded.manifest.name}`"
    if loaded.changed:
        return (
            f"{counted(len(loaded.changed), 'change')} since {visible(pinned.by)} pinned it at {pinned.at}: refused\n"
            + "\n".join(map(_change, loaded.changed))
        )
    return f"pinned as it is by {visible(pinned.by)} at {visible(pinned.at)}"


def pinning_text(loaded: Loaded) -> str:
    """What an approval would say yes to: all facts of a new manifest, or what has changed."""
    if loaded.pinned is not None:
        return f"{loaded.manifest.name}: {pin_line(loaded)}"
    facts = "\n".join(f"  {visible(place)}: {_value(value)}" for place, value in loaded.facts.items())
    return f"{loaded.manifest.name}: {loaded.info.version}, pinned by nobody yet\n{facts}"


def _change(change: Change) -> str:
    return f"~ {visible(change.place)}: {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    return "nothing" if value is None else visible(cut(str(value), _LINE)).replace("\n", "\\n")


def profile_text(profile: Profile, digest: str) -> str:
    """What a profile allows, in a line."""
    if not profile.confined:
        return f"{profile.name} {digest}: NOT CONFINED, a plain process of the host's user"
    root = "a root of its own" if profile.own_root else "the root of the host, read only"
    return f"{profile.name} {digest}: confined, {root}, {_NETWORK[profile.network]}"


def limits_text(limits: Limits) -> str:
    """The limits, in words."""
    said = []
    for name, value in limits.model_dump().items():
        text = "no limit" if value is None else f"{value:,}"
        if value is not None and name in _BYTES:
            text = size_text(value)
        elif value is not None and name.endswith("seconds"):
            text = duration(value)
        said.append(f"{name} {text}")
    return ", ".join(said)


def size_text(size: int) -> str:
    """Bytes as `512 B`, `1.5 MiB`."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"
