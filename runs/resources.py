"""What a definition needs of the place it runs in, as plain data, and the name of the pool of hosts that has it.

Pure. Knows no Ray, no actor and no setting: whoever keeps the pools reads this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, NoReturn

from retinue.runs.contracts import Json
from retinue.runs.errors import ConfigError, InvalidInput

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("kmgt", start=1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTkmgt]?i?)[Bb]?")
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_WORD}")
_VALUE = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:,\s*{_WORD})*\))")
_RESERVED = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
_NODE_ID = "ray.io/node-id"
_READABLE = 40


@dataclass(frozen=True)
class Resources:
    """What one process that hosts such runs reserves, and where it may be.

    `memory` is in bytes, or text such as `4GiB`. `labels` are those of the node: a value, `!value`, `in(a,b)` or
    `!in(a,b)`. `custom` are resources that nodes offer under names of their own. `runtime_env` is the process's
    environment in Ray's words; it is no place for secrets. A `dedicated` run has a process of its own, which ends with
    it and is killed when a cancel does not end it. InvalidInput names what cannot be.
    """

    cpus: float = 0
    gpus: float = 0
    memory: int | str = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Json] = field(default_factory=dict)
    dedicated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", _bytes(self.memory))
        for name, amount in {"cpus": self.cpus, "gpus": self.gpus, **self.custom}.items():
            _check_amount(name, amount)
        for name in self.custom:
            if name in _RESERVED or name.startswith("node:"):
                _refuse("custom", name, "cpus, gpus and memory are fields; other names are those your nodes offer")
        for key, value in self.labels.items():
            _check_label(key, value)
        try:
            json.dumps(self.runtime_env)
        except (TypeError, ValueError) as error:
            _refuse("runtime_env", self.runtime_env, f"it must be plain JSON ({error})")

    @property
    def empty(self) -> bool:
        """True when any host will do."""
        return self == Resources()

    @property
    def reserves(self) -> bool:
        """True when it takes something of a node that others then do not have."""
        return bool(self.cpus or self.gpus or self.memory or self.custom)

    def to_json(self) -> dict[str, Json]:
        """As plain data: `Resources(**resources.to_json())` is equal."""
        return asdict(self)


def pool_name(needs: Resources) -> str:
    """The pool of hosts that have this: what a person recognises, and a digest of all of it."""
    text = json.dumps(needs.to_json(), sort_keys=True)
    return f"{readable_name(needs)}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def guest_pool(host_id: str) -> str:
    """The pool of a guest: a host that serves only what was submitted through it, until it retires."""
    return f"guest-{host_id}"


def readable_name(needs: Resources) -> str:
    """The first part of a pool's name, such as `gpu1-cpu2-ssd`; pools that differ in the rest share it."""
    words = ["dedicated"] if needs.dedicated else []
    counted = {"gpu": needs.gpus, "cpu": needs.cpus, **needs.custom}
    words += [f"{name}{amount:g}" for name, amount in counted.items() if amount]
    words += [f"mem{int(needs.memory) / 1024**3:.2g}g"] if needs.memory else []
    words += [value for _, value in sorted(needs.labels.items())]
    words += ["env"] if needs.runtime_env else []
    name = re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-")
    return name[:_READABLE].rstrip("-.") or "any"


def combined(who: str, parts: Iterable[tuple[str, Resources]]) -> Resources:
    """What a definition needs with all it uses: the most of each amount, every label, one runtime_env.

    Raises ConfigError when two of them contradict each other; `who` and the names of the parts are told.
    """
    whole = Resources()
    by: dict[tuple[str, str], str] = {}
    for name, part in parts:
        labels = _joined(who, (name, "labels"), (whole.labels, part.labels), by)
        runtime_env = _joined(who, (name, "runtime_env"), (whole.runtime_env, part.runtime_env), by)
        whole = Resources(
            cpus=max(whole.cpus, part.cpus),
            gpus=max(whole.gpus, part.gpus),
            memory=max(int(whole.memory), int(part.memory)),
            labels=labels,
            custom=_most(whole.custom, part.custom),
            runtime_env=runtime_env,
            dedicated=whole.dedicated or part.dedicated,
        )
    return whole


def amounts(needs: Resources) -> dict[str, float]:
    """All that can be counted, by name."""
    return {"cpus": needs.cpus, "gpus": needs.gpus, "memory": int(needs.memory), **needs.custom}


def in_words(name: str, amount: float) -> str:
    """An amount as a person says it: `2 cpus`, `4 GiB of memory`."""
    return f"{amount / 1024**3:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}"


def lacking(has: Resources, wants: Resources) -> list[str]:
    """What of `wants` a process made for `has` is not sure to have, in words; empty when nothing."""
    there = amounts(has)
    missing = [in_words(name, amount) for name, amount in amounts(wants).items() if amount > there.get(name, 0)]
    missing += [f"label {key}={value}" for key, value in wants.labels.items() if has.labels.get(key) != value]
    missing += [f"runtime_env {key}" for key, value in wants.runtime_env.items() if has.runtime_env.get(key) != value]
    return missing + (["dedicated"] if wants.dedicated and not has.dedicated else [])


def _joined(
    who: str,
    place: tuple[str, str],
    values: tuple[Mapping[str, Any], Mapping[str, Any]],
    by: dict[tuple[str, str], str],
) -> dict[str, Any]:
    name, what = place
    known, more = values
    for key, value in more.items():
        if key in known and known[key] != value:
            raise ConfigError(
                f"{who}: {name} needs {what} {key}={value!r}, and {by[what, key]} needs {known[key]!r}: no process has "
                "both; give them to two agents"
            )
        by.setdefault((what, key), name)
    return {**known, **more}


def _most(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted({*one, *other})}


def _bytes(said: int | str) -> int:
    if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
        return said
    match = _SIZE.fullmatch(said.strip()) if isinstance(said, str) else None
    if match is None:
        _refuse("memory", said, "give bytes, or a size such as 512MB or 4GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _check_amount(name: str, amount: float) -> None:
    known = isinstance(amount, int | float) and not isinstance(amount, bool)
    if not known or amount < 0 or (amount > 1 and amount != int(amount)):
        _refuse(name, amount, "give 0 or more; above 1 only whole numbers")


def _check_label(key: str, value: str) -> None:
    if key == _NODE_ID:
        _refuse("labels", key, "a node's id is gone when the node is: give your nodes a label of their own")
    if not isinstance(key, str) or not _LABEL.fullmatch(key):
        _refuse("labels", key, "a key is letters, digits and ._- after an optional prefix/")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        _refuse(f"labels[{key!r}]", value, "give a value, !value, in(a,b) or !in(a,b)")


def _refuse(name: str, value: object, remedy: str) -> NoReturn:
    raise InvalidInput(f"Resources({name}): {value!r} cannot be: {remedy}")
