"""Which kind of address a connection would go to, and whether an instance may go there.

Guarantees: every IPv4 and IPv6 address has exactly one class; everything that is not plainly public is refused unless
the instance names the class. Leaves to `resolver` the names, to `dialer` that the checked address is the dialled one.

Source: RFC 6890 and the IANA special-purpose address registries; the clouds' documentation of their metadata services.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from gateway.edge import refusal
from gateway.errors import GateMisuse


class AddressClass(StrEnum):
    """Kinds of addresses. Only `PUBLIC` is allowed without being named."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    CGNAT = "cgnat"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    UNSPECIFIED = "unspecified"
    TRANSLATED = "translated"
    RESERVED = "reserved"


_METADATA: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # container credentials
        "169.254.170.23",
        "168.63.129.16",  # wire server
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)

# First match counts, so the narrow stands before the wide.
_V4: Final[tuple[tuple[IPv4Network, AddressClass], ...]] = tuple(
    (IPv4Network(text), kind)
    for text, kind in (
        ("127.0.0.0/8", AddressClass.LOOPBACK),
        ("10.0.0.0/8", AddressClass.PRIVATE),
        ("172.16.0.0/12", AddressClass.PRIVATE),
        ("192.168.0.0/16", AddressClass.PRIVATE),
        ("100.64.0.0/10", AddressClass.CGNAT),
        ("169.254.0.0/16", AddressClass.LINK_LOCAL),
        ("0.0.0.0/8", AddressClass.UNSPECIFIED),
        ("224.0.0.0/4", AddressClass.MULTICAST),
        ("255.255.255.255/32", AddressClass.BROADCAST),
        ("192.88.99.0/24", AddressClass.TRANSLATED),  # 6to4 relays
        ("192.0.0.0/24", AddressClass.RESERVED),
        ("192.0.2.0/24", AddressClass.RESERVED),
        ("192.31.196.0/24", AddressClass.RESERVED),
        ("192.52.193.0/24", AddressClass.RESERVED),
        ("192.175.48.0/24", AddressClass.RESERVED),
        ("198.18.0.0/15", AddressClass.RESERVED),
        ("198.51.100.0/24", AddressClass.RESERVED),
        ("203.0.113.0/24", AddressClass.RESERVED),
        ("240.0.0.0/4", AddressClass.RESERVED),
    )
)

_V6: Final[tuple[tuple[IPv6Network, AddressClass], ...]] = tuple(
    (IPv6Network(text), kind)
    for text, kind in (
        ("::1/128", AddressClass.LOOPBACK),
        ("::/128", AddressClass.UNSPECIFIED),
        ("fc00::/7", AddressClass.PRIVATE),
        ("fec0::/10", AddressClass.PRIVATE),  # site-local, deprecated
        ("fe80::/10", AddressClass.LINK_LOCAL),
        ("ff00::/8", AddressClass.MULTICAST),
        ("64:ff9b::/96", AddressClass.TRANSLATED),  # NAT64
        ("64:ff9b:1::/48", AddressClass.TRANSLATED),
        ("2002::/16", AddressClass.TRANSLATED),  # 6to4
        ("2001::/32", AddressClass.TRANSLATED),  # Teredo
        ("::/96", AddressClass.TRANSLATED),  # IPv4-compatible
        ("::ffff:0:0:0/96", AddressClass.TRANSLATED),  # SIIT
        ("2001::/23", AddressClass.RESERVED),
        ("2001:db8::/32", AddressClass.RESERVED),
        ("3fff::/20", AddressClass.RESERVED),
        ("5f00::/16", AddressClass.RESERVED),
        ("100::/64", AddressClass.RESERVED),
        ("2000::/3", AddressClass.PUBLIC),
    )
)


def classify_address(address: str | IPv4Address | IPv6Address) -> AddressClass:
    """The class of an address given as text or parsed. Raises `ValueError` for anything that is none.

    **Security**: an IPv4 address in IPv6 clothes (`::ffff:127.0.0.1`) has the class of the IPv4 address, because the
    kernel dials that; addresses that some relay would translate are a class of their own, whatever they embed.
    """
    parsed = ip_address(address) if isinstance(address, str) else address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return classify_address(parsed.ipv4_mapped)
        bare = IPv6Address(int(parsed))  # without a zone
        if bare in _METADATA:
            return AddressClass.METADATA
        return next((kind for network, kind in _V6 if bare in network), AddressClass.RESERVED)
    if parsed in _METADATA:
        return AddressClass.METADATA
    return next((kind for network, kind in _V4 if parsed in network), AddressClass.PUBLIC)


def check_address(address: str, allowed: frozenset[AddressClass]) -> None:
    """Raise a refusal `egress_forbidden` unless the address is public or of an allowed class.

    The refusal names the class, not the address: the caller learns nothing about the network behind the gate.
    """
    try:
        kind = classify_address(address)
    except ValueError as error:
        raise refusal("egress_forbidden", "the target resolves to something that is no address") from error
    if kind is not AddressClass.PUBLIC and kind not in allowed:
        raise refusal("egress_forbidden", f"the target resolves to a {kind.value} address, which is not allowed here")


def address_classes(names: Iterable[str]) -> frozenset[AddressClass]:
    """The classes that a configuration names (`allow_addresses`). Raises `GateMisuse` for an unknown name."""
    try:
        return frozenset(AddressClass(name.replace("-", "_")) for name in names)
    except ValueError as error:
        known = ", ".join(kind.value for kind in AddressClass)
        raise GateMisuse(f"allow_addresses names an unknown class; known are {known}") from error
