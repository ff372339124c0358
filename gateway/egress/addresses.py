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
        "169.254.0.23",
        "169.254.42.42",
        "168.63.129.16",  # wire server
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fe80::a9fe:a9fe",
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


_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_EMBEDDED_LAST: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"))


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


_NOT_EMBEDDED: Final = IPv4Network("0.0.0.0/8")
_IPV4_MASK: Final = 0xFFFF_FFFF
_ISATAP: Final = 0x0000_5EFE


def embedded_addresses(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which a relay or tunnel could carry what is sent to `address`.

    Where the length of a translator's prefix cannot be seen, every reading counts that is an address at all.

    Source: RFC 6052 §2.2 (NAT64), RFC 8215 (local NAT64), RFC 3056 §2 (6to4), RFC 4380 §4 (Teredo), RFC 4291 §2.5.5.1,
    RFC 7915 (SIIT), RFC 5214 §6.1 (ISATAP).
    """
    bits = int(address)
    low = bits & _IPV4_MASK
    found: tuple[int, ...] = ()
    if address in _LOCAL_NAT64:
        after_u = (bits & ((1 << 56) - 1)) >> 16  # bits 72 to 111; the eight before are the octet u, which is skipped
        upper = (bits >> 64) & 0xFFFF
        readings = (low, upper << 16 | after_u >> 24, (upper & 0xFF) << 24 | after_u >> 16, after_u >> 8)
        found = tuple(reading for reading in readings if IPv4Address(reading) not in _NOT_EMBEDDED)
    elif address in _SIX_TO_FOUR:
        found = (bits >> 80 & _IPV4_MASK,)
    elif address in _TEREDO:
        found = (bits >> 64 & _IPV4_MASK, low ^ _IPV4_MASK)
    elif not address.is_loopback and any(address in network for network in _EMBEDDED_LAST):
        found = (low,)
    elif (bits >> 32 & 0xFDFF_FFFF) == _ISATAP:
        found = (low,)
    return tuple(IPv4Address(reading) for reading in found)


def check_address(address: str, allowed: frozenset[AddressClass]) -> None:
    """Raise a refusal `egress_forbidden` unless the address is public or of an allowed class.

    The refusal names the class, not the address: the caller learns nothing about the network behind the gate.

    **Security**: an address that embeds an IPv4 address is refused unless the class of that one may be reached too: who
    may use a translator may not use it to reach what is forbidden without one.
    """
    try:
        parsed = ip_address(address)
    except ValueError as error:
        raise refusal("egress_forbidden", "the target resolves to something that is no address") from error
    kinds = [classify_address(parsed)]
    if isinstance(parsed, IPv6Address):
        kinds += map(classify_address, embedded_addresses(IPv6Address(int(parsed))))
    for kind in kinds:
        if kind is not AddressClass.PUBLIC and kind not in allowed:
            raise refusal(
                "egress_forbidden", f"the target resolves to a {kind.value} address, which is not allowed here"
            )


def address_classes(names: Iterable[str]) -> frozenset[AddressClass]:
    """The classes that a configuration names (`allow_addresses`). Raises `GateMisuse` for an unknown name."""
    try:
        return frozenset(AddressClass(name.replace("-", "_")) for name in names)
    except ValueError as error:
        known = ", ".join(kind.value for kind in AddressClass)
        raise GateMisuse(f"allow_addresses names an unknown class; known are {known}") from error
