"""Networks and addresses: ``net.cidr_contains_matches``, ``net.cidr_is_valid``, ``net.cidr_merge``, ``net.cidr_expand``.

Guarantees that a text is an address or a network exactly if Go's ``net.ParseIP`` and ``net.ParseCIDR`` take it, and that
it means the same one. Every address is a number of 128 bits; an IPv4 address is the one in ``::ffff:0:0/96``, in whichever
way it was written, and a network contains only addresses of its own kind: no IPv6 network contains an IPv4 address.

Declined: results beyond the bounds below, and what ``net.cidr_merge`` gets wrong or crashes on (see ``merge``).

**Security**: rules against requests to inner addresses rest on this. A text that is no address makes the call undefined,
and a rule that denies by a match does not then deny: such a rule also needs ``net.cidr_is_valid`` or an allow-list.

**Source**: OPA's ``v1/topdown/cidr.go``; Go's ``net`` and ``net/netip``; RFC 4291 §2.2, RFC 4632, RFC 5952.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final

from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value, write_value

ADDRESSES_MAX: Final = 4096
"""So many addresses ``net.cidr_expand`` answers at most."""

MEMBERS_MAX: Final = 10_000
"""So many members a result has at most."""

RESULT_MAX_BYTES: Final = 100_000
"""So long the written pairs of ``net.cidr_contains_matches`` are at most."""

_BITS: Final = 128
_V4: Final = 0xFFFF << 32
"""The first IPv4 address, 0.0.0.0."""
_V4_END: Final = _V4 + (1 << 32)
_HOSTS: Final = tuple((1 << (_BITS - prefix)) - 1 for prefix in range(_BITS + 1))
"""By length of the prefix: the bits that it leaves to hosts."""

_OCTET: Final = "(0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_QUAD: Final = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}")
_GROUP: Final = re.compile("[0-9A-Fa-f]{1,4}")
_PREFIX: Final = re.compile("0*([0-9]{1,3})")

_SHORT_CHARACTERS: Final = 64
"""Texts up to here are remembered with what they mean; every address and network in its usual spelling is shorter."""


@dataclass(frozen=True, slots=True)
class _Network:
    """The network from ``first`` on, with ``prefix`` of 128 bits. ``bits``: of the kind of address it was written with."""

    first: int
    prefix: int
    bits: int

    @property
    def last(self) -> int:
        return self.first | _HOSTS[self.prefix]


def _is_v4(address: int) -> bool:
    return _V4 <= address < _V4_END


def _quad(text: str) -> int | None:
    """The 32 bits of ``a.b.c.d``. No octet has a leading zero: some systems read those as octal."""
    found = _QUAD.fullmatch(text)
    return None if found is None else int.from_bytes(map(int, found.groups()), "big")


def _address(text: str) -> tuple[int, int] | None:
    """The address as a number, and the bits of the kind it is written as; None for what Go refuses, zones among it."""
    if ":" not in text:
        quad = _quad(text)
        return None if quad is None else (_V4 | quad, 32)
    head, _, tail = text.rpartition(":")
    if "." in tail:
        quad = _quad(tail)
        if quad is None:
            return None
        text = f"{head}:{quad >> 16:x}:{quad & 0xFFFF:x}"
    before, gap, after = text.partition("::")
    left = before.split(":") if before else []
    right = after.split(":") if after else []
    missing = 8 - len(left) - len(right)
    if (missing < 1 if gap else missing) or not all(map(_GROUP.fullmatch, [*left, *right])):
        return None
    return int("".join(group.rjust(4, "0") for group in [*left, *["0"] * missing, *right]), 16), _BITS


def _parsed(text: str) -> _Network | None:
    """The network that a text in CIDR notation names, host bits cleared; None for what Go refuses."""
    before, _, after = text.partition("/")
    address, prefix = _address(before), _PREFIX.fullmatch(after)
    if address is None or prefix is None or int(prefix[1]) > address[1]:
        return None
    length = int(prefix[1]) + _BITS - address[1]
    return _Network(address[0] & ~_HOSTS[length], length, address[1])


_remembered: Final = lru_cache(maxsize=4096)(_parsed)


def _network(text: str) -> _Network | None:
    return _remembered(text) if len(text) <= _SHORT_CHARACTERS else _parsed(text)


def _written(address: int) -> str:
    """The address as Go writes it: lower case, the first longest run of two or more empty groups as ``::``."""
    if _is_v4(address):
        return ".".join(map(str, address.to_bytes(16, "big")[12:]))
    groups = [f"{address >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)]
    runs, at = [(1, 8)], 0
    for group, same in groupby(groups):
        length = len(list(same))
        runs += [(length, -at)] if group == "0" else []
        at += length
    length, start = max(runs)
    if length < 2:
        return ":".join(groups)
    return ":".join(groups[:-start]) + "::" + ":".join(groups[length - start :])


def is_valid(text: Value) -> Value:
    """Whether the operand is a network in CIDR notation. Whatever is no text is none, and that is no error."""
    return isinstance(text, str) and _network(text) is not None


def expand(text: Value) -> Value:
    """All addresses of a network, first and last among them. Declined beyond ``ADDRESSES_MAX``."""
    network = _network(text) if isinstance(text, str) else None
    if network is None:
        raise Undefined
    if _HOSTS[network.prefix] >= ADDRESSES_MAX:
        raise Declined(f"net.cidr_expand of more than {ADDRESSES_MAX} addresses")
    return RegoSet(tuple(_written(address) for address in range(network.first, network.last + 1)))


def contains_matches(networks: Value, addresses: Value) -> Value:
    """The pairs of a network of the first operand and an address or network of the second that lies in it.

    A side is a text, which stands for itself; an array, whose items are named by their index; an object, by their key; a
    set, by themselves. An item is a text, or an array that begins with one. A side that is none of these has no items, and
    while one side has none, nothing of the other is read as an address. Declined beyond ``MEMBERS_MAX`` pairs and
    ``RESULT_MAX_BYTES``.
    """
    outer = _items(networks)
    inner = _items(addresses) if outer else []
    if not inner:
        return RegoSet(())
    by_prefix: dict[int, dict[int, list[Value]]] = {}
    for name, text in outer:
        network = _network(text) if isinstance(text, str) else None
        if network is None:
            raise Undefined
        by_prefix.setdefault(network.prefix, {}).setdefault(network.first, []).append(name)
    pairs: list[list[Value]] = []
    for name, text in inner:
        first, last = _range(text)
        if _is_v4(first) != _is_v4(last):
            continue  # of neither kind as a whole, so that no network contains it
        for prefix, by_first in by_prefix.items():
            start = first & ~_HOSTS[prefix]
            if last & ~_HOSTS[prefix] == start and _is_v4(start) == _is_v4(first):
                pairs += [[outer_name, name] for outer_name in by_first.get(start, ())]
        if len(pairs) > MEMBERS_MAX:
            raise Declined(f"net.cidr_contains_matches with more than {MEMBERS_MAX} pairs")
    _check_length(pairs)
    return RegoSet(tuple(pairs))


def _items(side: Value) -> list[tuple[Value, Value]]:
    """Each item's name and the value that must be its text. Raises ``Undefined`` for an item that can have none."""
    if isinstance(side, str):
        return [(side, side)]
    if isinstance(side, list):
        return [(index, _text(item)) for index, item in enumerate(side)]
    if isinstance(side, RegoSet):
        return [(item, _text(item)) for item in side.members]
    if isinstance(side, dict):
        return [(key, _text(item)) for key, item in side.items()]
    return []


def _text(item: Value) -> Value:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and item:
        return item[0]  # type: ignore[no-any-return]
    raise Undefined


def _range(text: Value) -> tuple[int, int]:
    """First and last address of an address or network."""
    if not isinstance(text, str):
        raise Undefined
    network = _network(text)
    if network is not None:
        return network.first, network.last
    address = _address(text)
    if address is None:
        raise Undefined
    return address[0], address[0]


def _check_length(pairs: list[list[Value]]) -> None:
    """Raises ``Declined`` if writing the pairs takes too long: a name may be a large value, and stand in many pairs."""
    lengths: dict[int, int] = {}
    total = 0
    for pair in pairs:
        for name in pair:
            if id(name) not in lengths:
                lengths[id(name)] = len(write_value(name))
            total += lengths[id(name)]
        if total > RESULT_MAX_BYTES:
            raise Declined(f"net.cidr_contains_matches with pairs of more than {RESULT_MAX_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class _Span:
    """The addresses from ``first`` to ``last``; ``text`` while it is one network as it came."""

    last: int
    first: int
    text: str | None


def merge(networks: Value) -> Value:
    """The fewest networks that cover the same addresses, from an array or a set of networks and IPv4 addresses.

    An IPv4 address without a prefix stands for the whole network of its class: 10.1.2.3 for 10.0.0.0/8, and it is written
    10.1.2.3/8 if nothing is merged with it. Such an IPv6 address is undefined. So OPA does.

    Declined, because OPA errs or crashes there: IPv4 networks written as IPv6 (``::ffff:10.0.0.0/104``); merged IPv6
    networks whose common network begins with a zero octet but is not at ``::`` (``64:ff9b::/97`` with its neighbour);
    merged IPv6 networks that reach into ``::ffff:0:0/96`` or touch it.
    """
    if not isinstance(networks, (list, RegoSet)):
        raise Undefined
    members = networks.members if isinstance(networks, RegoSet) else networks
    merged = _joined([_span(member) for member in members])
    found = {text for span in merged for text in (_networks(span) if span.text is None else [span.text])}
    if len(found) > MEMBERS_MAX:
        raise Declined(f"net.cidr_merge with more than {MEMBERS_MAX} networks")
    return RegoSet.of(found)


def _span(member: Value) -> _Span:
    """The addresses of one member of ``merge``; raises ``Undefined`` and ``Declined``."""
    if not isinstance(member, str):
        raise Undefined
    address = _address(member)
    if address is not None:
        if not _is_v4(address[0]):
            raise Undefined
        octet = address[0] >> 24 & 0xFF
        length = 8 if octet < 0x80 else 16 if octet < 0xC0 else 24
        hosts = _HOSTS[96 + length]
        return _Span(address[0] | hosts, address[0] & ~hosts, f"{_written(address[0])}/{length}")
    network = _network(member)
    if network is None:
        raise Undefined
    if network.bits == _BITS and _is_v4(network.first):
        raise Declined("net.cidr_merge of an IPv4 network that is written as IPv6")
    length = network.prefix - _BITS + network.bits
    return _Span(network.last, network.first, f"{_written(network.first)}/{length}")


def _joined(spans: list[_Span]) -> list[_Span]:
    """The spans with those made one that overlap or lie side by side, across all 128 bits."""
    joined: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.last, span.first), reverse=True):
        above = joined[-1] if joined else None
        before = above.first - (above.first not in (0, _V4)) if above else -1
        if above is None or before > span.last:
            joined.append(span)
        else:
            joined[-1] = _Span(above.last, min(above.first, span.first), None)
    return joined


def _networks(span: _Span) -> Sequence[str]:
    """The fewest networks of a span that was made of several; raises ``Declined``."""
    common = _BITS - (span.first ^ span.last).bit_length()
    start = span.first & ~_HOSTS[common]
    if _is_v4(span.first) and _is_v4(span.last):
        bits = 32
    elif _is_v4(span.first) or (start and start >> 120 == 0):
        raise Declined("net.cidr_merge of IPv6 networks that OPA crashes on")
    else:
        bits = _BITS
        whole = span.first == start and span.last == start | _HOSTS[common]
        if not whole and span.first <= _V4_END and span.last >= _V4 - 1:
            raise Declined("net.cidr_merge of IPv6 networks beside IPv4")
    texts: list[str] = []
    first = span.first
    while first <= span.last:
        aligned = (first & -first).bit_length() - 1 if first else _BITS
        size = min(aligned, (span.last - first + 1).bit_length() - 1)
        texts.append(f"{_written(first)}/{bits - size}")
        first += 1 << size
    return texts


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {
    "net.cidr_contains_matches": contains_matches,
    "net.cidr_expand": expand,
    "net.cidr_is_valid": is_valid,
    "net.cidr_merge": merge,
}
"""Name to function; raise ``Undefined`` and ``Declined``."""
