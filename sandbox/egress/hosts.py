"""Which hosts a profile lists, and which addresses a name may lead to. Pure.

A listed name is `name`, `*.name` for all below it, or an address; it holds for the ports 80 and 443, or for the one
that stands with it, as in `name:8443` and `[::1]:8443`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

USUAL_PORTS = (80, 443)
_LONGEST = 253
_WITH_IPV4 = tuple(map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "::/96")))
"""Mapped, translated by a gateway (NAT64), and the old compatible ones."""
_OF_CLOUDS = frozenset({IPv4Address("168.63.129.16")})
"""Public by its number, and answered by the platform that a machine of Azure runs on."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One host of a profile. `below`: the names below it instead of itself; `port` None: the usual ones."""

    name: str
    below: bool
    port: int | None

    def covers(self, host: str, port: int) -> bool:
        """Whether it stands for this host and port."""
        fits = host.endswith(f".{self.name}") if self.below else host == self.name
        return fits and (port in USUAL_PORTS if self.port is None else port == self.port)


def parse_listed(text: str) -> Listed:
    """A host as a profile lists it. ValueError names what is wrong with it."""
    name, port = split_port(text.strip().lower())
    below = name.startswith("*.")
    name = plain_name(name.removeprefix("*."))
    if below and address_of(name) is not None:
        raise ValueError(f"{text!r}: there is nothing below an address: list the address itself")
    return Listed(name, below, port)


def split_port(text: str) -> tuple[str, int | None]:
    """`name:port`, `[address]:port` or a name alone. ValueError for a port that is none."""
    if text.startswith("["):
        name, end, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest.startswith(":") else ""
        if not end or (rest and not port):
            raise ValueError(f"{text!r} is no address: write [address]:port")
    elif text.count(":") > 1:
        name, port = text, ""
    else:
        name, colon, port = text.partition(":")
        if colon and not port:
            raise ValueError(f"{text!r} ends before its port: write name:port")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{text!r}: {port!r} is no port: write a number from 1 to 65535")
    return name, int(port) if port else None


def plain_name(name: str) -> str:
    """A name as names are compared: lower case, no dot at its end. ValueError for what is no name of a host."""
    plain = name.lower().rstrip(".")
    known = address_of(plain)
    if known is not None:
        return str(known)
    good = plain.isascii() and all(part.isascii() and _is_label(part) for part in plain.split("."))
    if not plain or len(plain) > _LONGEST or not good:
        raise ValueError(f"{name[:80]!r} is no name of a host: write it as in example.org, without a scheme or a path")
    return plain


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a name is itself, if it is one."""
    try:
        return ip_address(name)
    except ValueError:
        return None


def may_lead_to(host: str, address: str) -> bool:
    """Whether a listed host may be reached at this address. A name leads to public ones only, whatever its server
    says: not to this machine, its network or a cloud's metadata; an address that is listed itself may be any.
    """
    found = address_of(address.partition("%")[0])
    if found is None:
        return False
    if address_of(host) == found:
        return True
    meant = _inner(found) if isinstance(found, IPv6Address) else found
    return _is_public(meant)


def _inner(found: IPv6Address) -> IPv4Address | IPv6Address:
    """The address of IPv4 that a machine on the way makes of one of IPv6, if it is of that kind."""
    low = IPv4Address(int(found) & 0xFFFFFFFF)
    if any(found in network for network in _WITH_IPV4):
        return low
    return found.sixtofour or found


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    local = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not address.is_multicast and not local and address not in _OF_CLOUDS


def _is_label(part: str) -> bool:
    return 0 < len(part) < 64 and part.replace("-", "").replace("_", "").isalnum() and part[0] != "-"
