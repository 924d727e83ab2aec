"""Which hosts a list stands for, and where a name may lead: names, ports and addresses of all kinds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.sandbox.egress.hosts import USUAL_PORTS, Listed, may_lead_to, parse_listed, plain_name, split_port

pytestmark = [pytest.mark.promise("E4")]

LABELS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join).filter(lambda name: not name[-1].isdigit())
PORTS = st.integers(1, 65_535)
PRIVATE = st.one_of(
    st.sampled_from(
        ["127.0.0.0", "10.0.0.0", "172.16.0.0", "192.168.0.0", "169.254.0.0", "100.64.0.0", "0.0.0.0"]
    ).flatmap(lambda net: st.integers(0, 2**16 - 1).map(lambda low: IPv4Address(int(IPv4Address(net)) + low))),
    st.integers(int(IPv4Address("224.0.0.0")), 2**32 - 1).map(IPv4Address),
)
EVERY = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(NAMES, st.none() | PORTS, st.booleans())
def test_what_is_written_is_read(name: str, port: int | None, below: bool) -> None:
    text = f"{'*.' if below else ''}{name}{'' if port is None else f':{port}'}"
    assert parse_listed(f" {text.upper()} ") == Listed(name, below, port)


@given(NAMES, PORTS)
def test_a_name_stands_for_itself_at_its_ports(name: str, port: int) -> None:
    listed = parse_listed(name)
    assert listed.covers(name, port) == (port in USUAL_PORTS)
    assert parse_listed(f"{name}:{port}").covers(name, port)
    assert not parse_listed(f"{name}:{port}").covers(name, port % 65_535 + 1)


@given(NAMES, LABELS, LABELS)
def test_a_star_stands_for_what_is_below_and_nothing_beside(name: str, label: str, other: str) -> None:
    below = parse_listed(f"*.{name}")
    assert below.covers(f"{label}.{name}", 443) and below.covers(f"{other}.{label}.{name}", 443)
    assert not below.covers(name, 443)
    assert not below.covers(f"{label}-{name}", 443)
    assert not below.covers(f"{name}.{label}-", 443)
    assert not parse_listed(name).covers(f"{label}.{name}", 443)


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_named_as_none(text: str) -> None:
    try:
        listed = parse_listed(text)
    except ValueError as error:
        assert str(error)
        return
    assert plain_name(listed.name) == listed.name
    assert listed.name.isascii() and not set(listed.name) & set("/@ \t\r\n\\?#%")


@given(PRIVATE, st.sampled_from(["{}", "::ffff:{}", "64:ff9b::{}", "::{}"]))
def test_no_name_leads_to_a_private_address_however_it_is_written(address: IPv4Address, form: str) -> None:
    assert not may_lead_to("example.org", form.format(address))


@given(PRIVATE)
def test_no_name_leads_to_a_private_address_through_a_relay(address: IPv4Address) -> None:
    relayed = IPv6Address((0x2002 << 112) | (int(address) << 80) | 1)
    assert not may_lead_to("example.org", str(relayed))


@given(EVERY)
def test_an_address_that_is_listed_itself_may_be_any(address: IPv4Address | IPv6Address) -> None:
    assert may_lead_to(plain_name(str(address)), str(address))
    if may_lead_to("example.org", str(address)):
        assert ip_address(str(address)).is_global and not address.is_multicast


NOWHERE = """
fec0::1 fe80::1%eth0 fc00::1 :: ::1 ff02::1 168.63.129.16 ::ffff:168.63.129.16 fd00:ec2::254 2001:db8::1
100.100.100.200 nowhere
""".split()


@pytest.mark.parametrize("address", NOWHERE)
def test_addresses_of_clouds_sites_and_nobody_are_refused(address: str) -> None:
    assert not may_lead_to("example.org", address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"])
def test_public_addresses_are_not(address: str) -> None:
    assert may_lead_to("example.org", address)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://example.org", "is no port"),
        ("example.org/path", "is no name of a host"),
        ("user@example.org", "is no name of a host"),
        ("example.org:", "write name:port"),
        ("example.org:0", "1 to 65535"),
        ("example.org:65536", "1 to 65535"),
        ("[::1", "is no address"),
        ("[::1]x", "is no address"),
        ("a..b", "is no name of a host"),
        ("-a.org", "is no name of a host"),
        ("*.127.0.0.1", "nothing below an address"),
        ("*", "is no name of a host"),
        ("*.", "is no name of a host"),
        ("", "is no name of a host"),
        ("a" * 64 + ".org", "is no name of a host"),
        ("exämple.org", "is no name of a host"),
    ],
)
def test_what_is_no_host_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_listed(text)


def test_an_address_of_six_has_its_port_behind_brackets() -> None:
    assert split_port("[::1]:8443") == ("::1", 8443)
    assert split_port("::1") == ("::1", None)
    assert parse_listed("[0:0::1]:8443").covers("::1", 8443)
