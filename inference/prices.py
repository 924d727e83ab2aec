"""What a model call costs, in micro-dollars, and how many tokens a request will take before it is sent.

Owns rates, the offline price table of genai-prices (looked up once per model and provider) and the token
estimate. Knows no endpoint. A price in dollars per million tokens is a price in micro-dollars per token,
so `Decimal` rates times token counts are micro-dollars; sums are rounded up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import NamedTuple

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.types import TieredPrices

from retinue.runs.contracts import MICROS
from retinue.runs.messages import ModelRequest, ToolSpec

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 8
TOOL_TOKENS = 16
REQUEST_TOKENS = 16
"""The estimate: UTF-8 bytes / 4, and what roles, names and separators take around them."""


class Spent(NamedTuple):
    """Tokens of one call as the endpoint reports them; cached ones are a part of `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True)
class Tiers:
    """A price per token in micro-dollars: the last tier whose start lies below the call's input tokens
    holds for the whole call."""

    tiers: tuple[tuple[int, Decimal], ...]

    def at(self, input_tokens: int) -> Decimal:
        """The price per token of a call with so many input tokens."""
        return [price for start, price in self.tiers if start == 0 or input_tokens > start][-1]


@dataclass(frozen=True)
class Rates:
    """What a model's tokens cost, and what each request costs on top, in micro-dollars."""

    input: Tiers
    output: Tiers
    cache_read: Tiers | None = None
    cache_write: Tiers | None = None
    request: Decimal = Decimal(0)

    def micros(self, spent: Spent) -> int:
        """The price of a call, rounded up to a whole micro-dollar."""
        size = spent.input_tokens
        plain = max(0, size - spent.cache_read - spent.cache_write)
        total = (
            self.request
            + plain * self.input.at(size)
            + spent.cache_read * (self.cache_read or self.input).at(size)
            + spent.cache_write * (self.cache_write or self.input).at(size)
            + spent.output_tokens * self.output.at(size)
        )
        return int(total.to_integral_value(rounding=ROUND_CEILING))


FREE = Rates(input=Tiers(((0, Decimal(0)),)), output=Tiers(((0, Decimal(0)),)))


def flat_rates(input_usd: Decimal | str, output_usd: Decimal | str) -> Rates:
    """Rates from dollars per million input and per million output tokens."""
    return Rates(input=Tiers(((0, Decimal(input_usd)),)), output=Tiers(((0, Decimal(output_usd)),)))


@lru_cache(maxsize=512)
def find_rates(model: str, provider: str | None, api_url: str | None = None) -> Rates | None:
    """The list price of a model by provider id or by the provider's API address; None when unknown.

    Prices that change with the hour or the date are taken as they are when first looked up.
    """
    nothing = PricedUsage(input_tokens=0, output_tokens=0)
    try:
        if provider is not None:
            price = calc_price(nothing, model, provider_id=provider).model_price
        else:
            price = calc_price(nothing, model, provider_api_url=api_url).model_price
    except LookupError:
        return None
    taken, made = _tiers(price.input_mtok), _tiers(price.output_mtok)
    if taken is None or made is None:
        return None
    request = price.requests_kcount
    return Rates(
        input=taken,
        output=made,
        cache_read=_tiers(price.cache_read_mtok),
        cache_write=_tiers(price.cache_write_mtok),
        request=request * MICROS / 1000 if isinstance(request, Decimal) else Decimal(0),
    )


def _tiers(price: Decimal | TieredPrices | None) -> Tiers | None:
    match price:
        case None:
            return None
        case TieredPrices():
            return Tiers(((0, price.base), *((tier.start, tier.price) for tier in price.tiers)))
        case _:
            return Tiers(((0, price),))


def estimate_text(text: str) -> int:
    """Tokens of a text: its UTF-8 bytes divided by four, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def estimate_request(request: ModelRequest) -> int:
    """Input tokens of a request: its texts, tool calls, tool schemas and output schema, plus overhead."""
    total = REQUEST_TOKENS
    for message in request.messages:
        total += MESSAGE_TOKENS + estimate_text(message.content)
        for call in message.tool_calls:
            total += TOOL_TOKENS + estimate_text(call.raw or json.dumps(call.arguments))
    total += sum(map(_estimate_tool, request.tools))
    if request.output_schema is not None:
        total += estimate_text(json.dumps(request.output_schema))
    return total


def _estimate_tool(tool: ToolSpec) -> int:
    texts = estimate_text(tool.name) + estimate_text(tool.description)
    return TOOL_TOKENS + texts + estimate_text(json.dumps(tool.input_schema))
