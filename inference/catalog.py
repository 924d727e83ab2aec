"""Which client a model's full name stands for, and the one ModelPort that holds them all.

Owns the forms of names, the making of clients (when first used, once) and the check of a name at start-up.
Receives plain settings; reads no configuration file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from retinue.inference.anthropic import AnthropicDialect
from retinue.inference.extractive import ExtractiveModel
from retinue.inference.http import MAX_BYTES, Http
from retinue.inference.openai_chat import ChatDialect
from retinue.inference.openai_responses import ResponsesDialect
from retinue.inference.prices import FREE, Rates, find_rates, flat_rates
from retinue.inference.remote import Endpoint, RemoteModel
from retinue.inference.scripted import ScriptedModel
from retinue.runs.errors import UnknownName
from retinue.runs.messages import ModelPort, ModelProfile, ModelReply, ModelRequest, OnDelta

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
BUILTIN = "builtin:extractive"
FORMS = (
    "builtin:extractive",
    "scripted:FILE.jsonl",
    "openai:NAME",
    "anthropic:NAME",
    "http://host[:port]/v1#NAME",
    "https://host[:port]/v1#NAME",
)


@dataclass(frozen=True)
class ModelSettings:
    """Plain settings of the catalog.

    `root` is where relative script paths start. `prices` gives a full model name its price as dollars per
    million (input, output) tokens and wins over the price table. `keys` gives the base URL of an
    OpenAI-compatible endpoint the environment variable of its key; no other endpoint at an address gets one.
    """

    root: Path
    prices: Mapping[str, tuple[Decimal | str, Decimal | str]]
    keys: Mapping[str, str]
    environ: Mapping[str, str]
    max_reply_bytes: int


class Models:
    """All models as one ModelPort. Clients are made when first used and share their connections."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._http = Http(max_bytes=settings.max_reply_bytes)
        self._clients: dict[str, ModelPort] = {}

    def find(self, name: str) -> ModelPort:
        """The client of a full name. UnknownName lists the forms, ConfigError a script's first fault."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self._make(name)
        return client

    def check(self, name: str) -> None:
        """Whether the model can be called as far as can be told without calling it: the name has a known
        form, the script parses, the key is set. Raises what a call would raise."""
        client = self.find(name)
        if isinstance(client, RemoteModel):
            client.find_key()

    def profile(self, request: ModelRequest) -> ModelProfile:
        """The profile of `request.model`."""
        return self.find(request.model).profile(request)

    async def complete(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One call of `request.model`."""
        return await self.find(request.model).complete(request, on_delta)

    async def close(self) -> None:
        """Closes every client and the connections of this event loop."""
        for client in self._clients.values():
            await client.close()
        await self._http.close()

    def _make(self, name: str) -> ModelPort:
        if name == BUILTIN:
            return ExtractiveModel()
        if name.startswith(("http://", "https://")):
            return self._make_compatible(name)
        kind, _, rest = name.partition(":")
        makers: dict[str, Callable[[str, str], ModelPort]] = {
            "scripted": self._make_scripted,
            "openai": self._make_openai,
            "anthropic": self._make_anthropic,
        }
        if not rest.strip() or kind not in makers:
            raise _unknown(name)
        return makers[kind](name, rest)

    def _make_scripted(self, name: str, rest: str) -> ModelPort:
        return ScriptedModel(self._settings.root / rest)

    def _make_openai(self, name: str, model: str) -> ModelPort:
        url = self._base_url("OPENAI_BASE_URL", OPENAI_URL)
        rates = self._rates(name, lambda: find_rates(model, "openai"))
        endpoint = Endpoint("openai", url, model, rates, key_variable="OPENAI_API_KEY")
        return RemoteModel(endpoint, ResponsesDialect(), self._http, self._settings.environ)

    def _make_anthropic(self, name: str, model: str) -> ModelPort:
        url = self._base_url("ANTHROPIC_BASE_URL", ANTHROPIC_URL)
        rates = self._rates(name, lambda: find_rates(model, "anthropic"))
        endpoint = Endpoint("anthropic", url, model, rates, key_variable="ANTHROPIC_API_KEY")
        return RemoteModel(endpoint, AnthropicDialect(), self._http, self._settings.environ)

    def _make_compatible(self, name: str) -> ModelPort:
        base, _, model = name.partition("#")
        base = base.rstrip("/")
        if not model.strip() or not _has_host(base):
            raise _unknown(name)
        own = _is_own(base)
        rates = self._rates(name, lambda: FREE if own else find_rates(model, None, base))
        official = base == OPENAI_URL
        key = self._settings.keys.get(base) or ("OPENAI_API_KEY" if official else None)
        free = own and name not in self._settings.prices
        endpoint = Endpoint("openai" if official else "openai-compatible", base, model, rates, free, key)
        dialect = ChatDialect("max_completion_tokens" if official else "max_tokens")
        return RemoteModel(endpoint, dialect, self._http, self._settings.environ)

    def _base_url(self, variable: str, default: str) -> str:
        url = self._settings.environ.get(variable, "").strip() or default
        if not url.startswith(("http://", "https://")) or not _has_host(url):
            raise UnknownName(f"the environment variable {variable} is {url!r}; give it http(s)://host[:port]")
        return url

    def _rates(self, name: str, look_up: Callable[[], Rates | None]) -> Rates | None:
        configured = self._settings.prices.get(name)
        return flat_rates(*configured) if configured is not None else look_up()


def models_from(
    *,
    root: Path | str = ".",
    prices: Mapping[str, tuple[Decimal | str, Decimal | str]] | None = None,
    keys: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    max_reply_bytes: int = MAX_BYTES,
) -> Models:
    """All models under plain settings; see `ModelSettings`. No client is made and nothing is read yet."""
    return Models(
        ModelSettings(
            root=Path(root),
            prices=dict(prices or {}),
            keys={url.rstrip("/"): variable for url, variable in (keys or {}).items()},
            environ=os.environ if environ is None else environ,
            max_reply_bytes=max_reply_bytes,
        )
    )


def _is_own(url: str) -> bool:
    """Whether an address is taken for the user's own server, whose calls cost nothing: any `http` one (no
    provider sells over it) and the loopback over `https`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _unknown(name: str) -> UnknownName:
    starts = {form.partition(":")[0]: form for form in FORMS}
    close = get_close_matches(name, [BUILTIN], cutoff=0.6)
    head = name.replace("/", ":").partition(":")[0].lower()
    close += [starts[start] for start in get_close_matches(head, starts, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else "."
    return UnknownName(f"there is no model {name!r}{hint} A model's name is one of: {', '.join(FORMS)}")
