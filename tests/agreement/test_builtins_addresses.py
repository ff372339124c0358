"""Networks and addresses: the host reads, holds together, merges and expands them as OPA does, near misses among them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from pdp.wasm.builtins.addresses import BUILTINS
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value
from tests.agreement.builtin_values import Comparison, Operands, compare

MATCHES = "net.cidr_contains_matches"

NETWORKS = {
    "the least": "0.0.0.0/0",
    "one address": "10.0.0.1/32",
    "host bits set": "10.1.2.3/8",
    "all ones": "255.255.255.255/1",
    "zeros before the prefix": "10.0.0.0/08",
    "many zeros before the prefix": "10.0.0.0/" + "0" * 90 + "8",
    "only zeros as prefix": "10.0.0.0/000",
    "all of IPv6": "::/0",
    "an IPv6 address": "::1/128",
    "IPv6 with host bits": "2001:db8:1:2:3:4:5:6/33",
    "IPv6 in capitals": "FE80::ABCD/64",
    "zeros in groups": "0:00:000:0000::/32",
    "a gap at the end": "1:2:3:4:5:6:7::/16",
    "a gap at the start": "::2:3:4:5:6:7:8/16",
    "a gap for one group": "1:2:3::5:6:7:8/128",
    "IPv4 written as IPv6": "::ffff:10.0.0.0/104",
    "IPv4 written as IPv6 in hexadecimal": "::ffff:a00:0/104",
    "IPv4 written as IPv6 in full": "0:0:0:0:0:FFFF:10.0.0.0/104",
    "all of IPv4 written as IPv6": "::ffff:0.0.0.0/96",
    "IPv4 and more, which is IPv6": "::ffff:10.0.0.0/95",
    "a compatible address": "::10.0.0.0/104",
    "NAT64": "64:ff9b::10.0.0.0/104",
    "a quad after a gap": "1:2:3::4:5.6.7.8/64",
}

ADDRESSES = {
    "an inner address": "10.1.2.3",
    "the next network": "11.0.0.0",
    "the one before": "9.255.255.255",
    "loopback": "127.0.0.1",
    "metadata": "169.254.169.254",
    "unspecified": "0.0.0.0",
    "broadcast": "255.255.255.255",
    "an inner address written as IPv6": "::ffff:10.1.2.3",
    "an inner address in hexadecimal": "::ffff:a01:203",
    "an inner address in full": "0000:0000:0000:0000:0000:ffff:0a01:0203",
    "a compatible address": "::10.1.2.3",
    "just below IPv4": "::fffe:ffff:ffff",
    "just above IPv4": "::1:0:0:0",
    "IPv6 loopback": "::1",
    "IPv6 unspecified": "::",
    "link local": "fe80::1",
    "NAT64": "64:ff9b::a01:203",
    "a network within": "10.2.0.0/16",
    "a network around": "8.0.0.0/5",
    "a network within, with host bits": "10.2.3.4/9",
    "a network across the border of IPv4": "::fffe:0:0/95",
    "a network within, written as IPv6": "::ffff:10.0.0.0/120",
}

REFUSED = {
    "empty": "",
    "a slash": "/",
    "only a prefix": "/8",
    "a name": "example.com",
    "localhost": "localhost",
    "a number": "167772161",
    "a hexadecimal number": "0x0a000001",
    "three octets": "10.0.1",
    "five octets": "10.0.0.0.1",
    "an empty octet": "10..0.1",
    "a dot at the end": "10.0.0.1.",
    "a dot at the start": ".10.0.0.1",
    "a leading zero": "010.0.0.1",
    "a leading zero at the end": "10.0.0.01",
    "two zeros": "10.00.0.1",
    "too large an octet": "10.0.0.256",
    "a hexadecimal octet": "0xa.0.0.1",
    "a sign": "+10.0.0.1",
    "a minus": "-10.0.0.1",
    "an exponent": "1e1.0.0.1",
    "an underscore": "1_0.0.0.1",
    "a space before": " 10.0.0.1",
    "a space after": "10.0.0.1 ",
    "a line after": "10.0.0.1\n",
    "a NUL after": "10.0.0.1\u0000",
    "digits that are not ASCII": "\u0661\u0660.0.0.1",
    "wide digits": "\uff11\uff10.0.0.1",
    "a wide dot": "10\uff0e0.0.1",
    "a superscript": "10.0.0.\u00b9",
    "a port": "10.0.0.1:80",
    "brackets": "[::1]",
    "a zone": "fe80::1%eth0",
    "an empty zone": "fe80::1%",
    "a zone of digits": "::1%1",
    "a zone after a quad": "::ffff:10.0.0.1%1",
    "only a zone": "%eth0",
    "one colon": ":",
    "three colons": ":::",
    "a colon at the start": ":1:2:3:4:5:6:7",
    "a colon at the end": "1:2:3:4:5:6:7:",
    "two gaps": "1::2::3",
    "nine groups": "1:2:3:4:5:6:7:8:9",
    "seven groups": "1:2:3:4:5:6:7",
    "eight groups and a gap": "1:2:3:4::5:6:7:8",
    "eight groups and a gap at the end": "1:2:3:4:5:6:7:8::",
    "five digits": "::00001",
    "a letter too far": "::g",
    "wide letters": "::\uff41",
    "a quad too early": "::1.2.3.4:5",
    "a quad too late": "1:2:3:4:5:6:7:1.2.3.4",
    "a quad and a gap for nothing": "1:2:3:4:5:6::1.2.3.4",
    "a quad with a leading zero": "::ffff:10.0.0.01",
    "a quad with too large an octet": "::ffff:10.0.0.256",
    "a quad of hexadecimal": "::ffff:a.0.0.1",
    "a quad before a colon": "10.0.0.1::",
    "a quad of three": "::ffff:10.0.1",
    "two quads": "1.2.3.4:5.6.7.8",
}

PREFIXES = {
    "none": "",
    "a plus": "+8",
    "a minus": "-8",
    "beyond IPv4": "33",
    "far beyond": "16777216",
    "beyond 64 bits": "18446744073709551624",
    "a space before": " 8",
    "a space after": "8 ",
    "a line after": "8\n",
    "a hexadecimal number": "0x8",
    "a fraction": "8.0",
    "a second one": "8/8",
    "a mask": "255.0.0.0",
    "digits that are not ASCII": "\u0668",
    "a superscript": "\u2078",
    "a zone": "8%1",
    "an underscore": "1_6",
}

BORDER = (
    "::/0",
    "::/1",
    "::/64",
    "::/79",
    "::/80",
    "::/81",
    "::/96",
    "::fffc:0:0/94",
    "::fffe:0:0/95",
    "::fffe:0:0/96",
    "::fffe:ffff:fff0/124",
    "::fffe:ffff:ffff/128",
    "::ffff:0:0/96",
    "0.0.0.0/32",
    "0.0.0.0/1",
    "255.255.255.0/24",
    "255.255.255.255/32",
    "::1:0:0:0/128",
    "::1:0:0:0/96",
    "::1:0:0:1/128",
    "::1:0:0:0/79",
    "100::/64",
    "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
)
"""Networks at the ends of IPv4 within the addresses of 128 bits, and around the addresses that begin with a zero octet."""

WRONG: dict[str, Value] = {
    "null": None,
    "a truth value": True,
    "a number": 10,
    "a fraction": [Decimal("1.5")],
    "an empty list": [[]],
}


def _text(source: random.Random) -> str:
    """An address, mostly a good one."""
    kind = source.random()
    if kind < 0.5:
        octets = (0, 1, 9, 10, 11, 127, 128, 169, 172, 192, 254, 255)
        return ".".join(str(source.choice(octets)) for _ in range(4))
    if kind < 0.7:
        return "::ffff:" + _text_of_quad(source, source.choice((0xA000001, 0x7F000001, source.getrandbits(32))))
    groups = [source.choice((0, 0, 0, 0, 1, 0xFFFF, 0xFFFE, 0x64, 0xFF9B, source.getrandbits(16))) for _ in range(8)]
    if source.random() < 0.3:
        groups[:6] = [0, 0, 0, 0, 0, source.choice((0xFFFF, 0xFFFE, 0, 1))]
    return _text_of_groups(source, groups)


def _text_of_quad(source: random.Random, quad: int) -> str:
    if source.random() < 0.5:
        return f"{quad >> 16:x}:{quad & 0xFFFF:04X}"
    return ".".join(map(str, quad.to_bytes(4, "big")))


def _text_of_groups(source: random.Random, groups: Sequence[int]) -> str:
    written = [format(group, source.choice(("x", "x", "x", "X", "04x"))) for group in groups]
    if source.random() < 0.2:
        written[6:] = [".".join(map(str, (groups[6] << 16 | groups[7]).to_bytes(4, "big")))]
    if source.random() < 0.8:
        start = source.randrange(len(written) + 1)
        stop = start
        while stop < len(written) and written[stop] in ("0", "0000"):
            stop += 1
        if stop > start or source.random() < 0.05:
            return ":".join(written[:start]) + "::" + ":".join(written[stop:])
    return ":".join(written)


def _prefix(source: random.Random, text: str) -> str:
    """A prefix that a network of ``text`` may have, mostly."""
    if source.random() < 0.02:
        return source.choice(list(PREFIXES.values()))
    common = (8, 16, 24, 32, 0, 31, 30) if ":" not in text else (64, 128, 96, 95, 104, 80, 0, 127, 120)
    length = source.choice(common) if source.random() < 0.7 else source.randrange(34 if ":" not in text else 130)
    return source.choice(("", "", "", "", "0")) + str(length)


def _broken(source: random.Random, text: str) -> str:
    """``text`` with a few characters other than they were."""
    for _ in range(source.choice((1, 1, 2))):
        at = source.randrange(len(text) + 1)
        piece = source.choice(
            (*"0123456789afAFgx:./%+-_ ", "::", "\n", "\u0000", "\u0661", "\uff11", "ffff", "00", "256")
        )
        cut = source.choice((0, 0, 1, 2))
        text = text[:at] + (piece if source.random() < 0.7 else "") + text[at + cut :]
    return text


def _entry(source: random.Random, *, of_network: bool, chance_broken: float) -> str:
    text = _text(source)
    if of_network or source.random() < 0.2:
        text += "/" + _prefix(source, text)
    return _broken(source, text) if source.random() < chance_broken else text


def _side(source: random.Random, *, of_networks: bool, is_faulty: bool) -> Value:
    """An operand of each shape. OPA's compiler would refuse a set beside a faulty one, so that there are none then."""
    entries = [_entry(source, of_network=of_networks, chance_broken=0.002) for _ in range(source.choice((0, 1, 3, 6)))]
    kind = source.random()
    if kind < 0.2 and not is_faulty:
        return RegoSet.of(entries)
    rest: tuple[list[Value], ...] = ([], [1], ["x"], [None, [2]], [{"a": 1}])
    items: list[Value] = [[entry, *source.choice(rest)] if source.random() < 0.3 else entry for entry in entries]
    if kind < 0.3 and not is_faulty:
        return RegoSet.of(items)
    if is_faulty:
        items.insert(source.randrange(len(items) + 1), source.choice([*WRONG.values(), {"a": "10.0.0.1"}]))
    return items if kind < 0.6 else {f"k{number}": item for number, item in enumerate(items)}


def _pair(source: random.Random) -> Operands:
    network = _entry(source, of_network=True, chance_broken=0.15)
    if source.random() < 0.3:
        return network, source.choice(list(ADDRESSES.values()))
    if source.random() < 0.3:
        near = network.partition("/")[0]
        return network, _broken(source, near) if source.random() < 0.5 else near
    return network, _entry(source, of_network=False, chance_broken=0.15)


def _sides(source: random.Random) -> Operands:
    if source.random() < 0.05:
        wrong: list[Value] = [None, True, 1, Decimal("1.5"), "10.0.0.0/8", "no"]
        return source.choice([*wrong, ["10.0.0.0/8"]]), source.choice([*wrong, ["10.0.0.1"]])
    is_faulty = source.random() < 0.05
    return tuple(_side(source, of_networks=first, is_faulty=is_faulty) for first in (True, False))


def _mergeable(source: random.Random) -> Operands:
    """Networks near each other, so that many of them merge."""
    if source.random() < 0.03:
        return (
            source.choice(
                [None, 1, "10.0.0.0/8", {"a": "10.0.0.0/8"}, [1], [["10.0.0.0/8"]], ["::1"], ["10.0.0.0/33"]]
            ),
        )
    kind = source.random()
    base = source.choice(("10.0.{}.0", "192.168.7.{}", "255.255.255.{}", "0.0.0.{}"))
    prefixes = ["24", "25", "23", "22", "30", "31", "32", "0"]
    if kind < 0.45:
        base = source.choice(
            ("2001:db8:0:{}::", "fe80::{}", "::{}", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff{:02x}", "64:ff9b::{}")
        )
        prefixes = ["64", "63", "65", "62", "126", "127", "128", "0", "96", "48"]
    texts = [
        f"{base.format(source.randrange(8 if '.0' in base else 200))}/{source.choice(prefixes)}"
        for _ in range(source.randrange(8))
    ]
    if kind < 0.1 or kind > 0.9:
        texts += [_entry(source, of_network=source.random() < 0.8, chance_broken=0.01) for _ in range(2)]
    if source.random() < 0.1:
        texts += source.choices(BORDER, k=2)
    if source.random() < 0.2:
        texts.append(
            source.choice(
                ("10.0.1.77", "192.168.7.1", "::/0", "0.0.0.0/0", "255.255.255.255/32", "::1:0:0:0/128", "::1/128")
            )
        )
    source.shuffle(texts)
    return (RegoSet.of(texts) if source.random() < 0.2 else texts,)


def _expandable(source: random.Random) -> Operands:
    text = _text(source)
    bits = 128 if ":" in text else 32
    length = source.randrange(bits - 6, bits + 1) if source.random() < 0.9 else source.randrange(bits + 2)
    text = f"{text}/{length}"
    return (_broken(source, text) if source.random() < 0.2 else text,)


def _validatable(source: random.Random) -> Operands:
    if source.random() < 0.03:
        return (source.choice([*WRONG.values(), {"a": 1}]),)
    return (_entry(source, of_network=True, chance_broken=0.5),)


DRAWN: dict[str, tuple[str, Callable[[random.Random], Operands], int]] = {
    "pairs of texts": (MATCHES, _pair, 6000),
    "sides of every shape": (MATCHES, _sides, 1500),
    "networks to merge": ("net.cidr_merge", _mergeable, 3000),
    "networks to expand": ("net.cidr_expand", _expandable, 1000),
    "texts to judge": ("net.cidr_is_valid", _validatable, 6000),
}


def _is_declined(name: str, operands: Operands) -> bool:
    try:
        BUILTINS[name](*operands)
    except Declined:
        return True
    except Undefined:
        pass
    return False


def _drawn(opa: Path, kind: str, seed: int) -> Comparison:
    """What comes of drawn calls. OPA is not asked those that are declined: it crashes on some, and does not end on others."""
    name, draw, count = DRAWN[kind]
    source = random.Random(seed)
    calls = [draw(source) for _ in range(count)]
    asked = [call for call in calls if not _is_declined(name, call)]
    assert len(asked) > 0.85 * len(calls)
    found = compare(opa, name, BUILTINS[name], asked)
    assert (found.differing, found.declined) == ([], [])
    assert found.agreeing_count > 0.5 * len(asked)
    return found


def test_matches_answer_as_opa_when_networks_and_addresses_are_good(opa_path: Path) -> None:
    inner = [*ADDRESSES.values(), *NETWORKS.values()]
    calls = [(network, address) for network in NETWORKS.values() for address in inner]
    found = compare(opa_path, MATCHES, BUILTINS[MATCHES], [*calls, (list(NETWORKS.values()), inner)])
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 0)
    assert BUILTINS[MATCHES](list(NETWORKS.values()), inner) != RegoSet(())


def test_matches_are_undefined_as_in_opa_when_a_text_is_none(opa_path: Path) -> None:
    bad = [*REFUSED.values(), *(f"10.0.0.0/{prefix}" for prefix in PREFIXES.values()), "::/129"]
    calls = [*((text, "10.0.0.1") for text in bad), *(("10.0.0.0/8", text) for text in bad if text != "")]
    calls += [(f"{text}/8", "10.0.0.1") for text in REFUSED.values()]
    found = compare(opa_path, MATCHES, BUILTINS[MATCHES], calls)
    assert (found.differing, found.declined, found.undefined_count) == ([], [], len(calls))


SIDES: dict[str, Operands] = {
    "arrays are named by index": (["11.0.0.0/8", "10.0.0.0/8"], ["1.1.1.1", "10.0.0.1"]),
    "objects are named by key": ({"a": "10.0.0.0/8", "b": ["10.0.0.0/9", 1]}, {"x": ["10.0.0.1"], "y": "::1"}),
    "sets are named by member": (RegoSet(("10.0.0.0/8", "11.0.0.0/8")), RegoSet(("10.0.0.1", "12.0.0.1"))),
    "sets of arrays are named by member": (
        RegoSet((["10.0.0.0/8", {"a": [Decimal("1.0")]}],)),
        RegoSet((["10.0.0.1", None],)),
    ),
    "the same network twice": (["10.0.0.0/8", "10.1.0.0/8"], ["10.0.0.1", "10.0.0.1"]),
    "an item after the first does not matter": ([["10.0.0.0/8", "no"]], [["10.0.0.1", 5, "no"]]),
    "no networks": ([], ["no"]),
    "no networks and no item that can be one": ([], [1]),
    "no addresses": (["no"], []),
    "no addresses in an object": (["no"], {}),
    "null has no items": (None, ["no"]),
    "a truth value has no items": (["no"], True),
    "a number has no items": (["10.0.0.0/8"], 10),
    "a network in an array in an array": ([[["10.0.0.0/8"]]], ["10.0.0.1"]),
    "an item that is a number": (["10.0.0.0/8", 1], ["10.0.0.1"]),
    "an item that is a number, and no addresses": (["10.0.0.0/8", 1], []),
    "an item that is an object": (["10.0.0.0/8"], [{"a": "10.0.0.1"}]),
    "an empty item": (["10.0.0.0/8"], {"a": []}),
    "an item that begins with a number": (["10.0.0.0/8"], [[1]]),
    "an address where a network must be": (["10.0.0.1"], ["10.0.0.1"]),
    "a bad one after a good one": (["10.0.0.0/8"], ["10.0.0.1", "10.0.0.01"]),
}


def test_matches_answer_as_opa_when_sides_have_other_shapes(opa_path: Path) -> None:
    found = compare(opa_path, MATCHES, BUILTINS[MATCHES], list(SIDES.values()))
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 8)


def test_is_valid_answers_as_opa_when_given_anything(opa_path: Path) -> None:
    values: list[Value] = [
        *NETWORKS.values(),
        *ADDRESSES.values(),
        *REFUSED.values(),
        *WRONG.values(),
    ]
    values += [f"{text}/8" for text in REFUSED.values()]
    values += [f"{text}/{prefix}" for text in ("10.0.0.0", "::") for prefix in (*PREFIXES.values(), "32", "128", "129")]
    found = compare(opa_path, "net.cidr_is_valid", BUILTINS["net.cidr_is_valid"], [(value,) for value in values])
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 0)


MERGED: dict[str, list[str]] = {
    "nothing": [],
    "one": ["192.0.2.9/24"],
    "the same twice": ["192.0.2.0/24", "192.0.2.0/24"],
    "neighbours": ["192.0.2.0/25", "192.0.2.128/25"],
    "neighbours of which none begins a larger one": ["192.0.1.0/24", "192.0.2.0/24"],
    "one within the other": ["10.0.0.0/8", "10.3.0.0/16"],
    "three, the middle one last": ["10.0.0.0/24", "10.0.2.0/24", "10.0.1.0/24"],
    "all of IPv4": ["0.0.0.0/1", "128.0.0.0/1"],
    "the last of IPv4": ["255.255.255.254/32", "255.255.255.255/32"],
    "the first of IPv4": ["0.0.0.0/32", "0.0.0.1/32"],
    "an address of class A": ["10.1.2.3"],
    "an address of class B": ["172.16.5.4"],
    "an address of class C": ["192.168.5.4"],
    "an address of class D": ["224.0.0.9"],
    "an address written as IPv6": ["::ffff:10.1.2.3"],
    "an address and its class": ["10.1.2.3", "10.0.0.0/8"],
    "two addresses of one class": ["10.1.2.3", "10.9.9.9"],
    "an IPv6 address": ["::1"],
    "IPv6 neighbours": ["2001:db8::/33", "2001:db8:8000::/33"],
    "IPv6 neighbours of which none begins a larger one": ["2001:db8:1::/48", "2001:db8:2::/48"],
    "IPv6 at the start": ["::/128", "::1/128"],
    "IPv6 near the start": ["::1/128", "::2/128"],
    "IPv6 at the end": ["ffff:ffff:ffff:ffff::/65", "ffff:ffff:ffff:ffff:8000::/65"],
    "IPv4 and IPv6": ["10.0.0.0/8", "::1/128", "fe80::/10"],
    "IPv4 within all of IPv6": ["10.0.0.0/8", "::/0"],
    "all of both": ["0.0.0.0/0", "::/0"],
    "NAT64 alone": ["64:ff9b::/96", "10.0.0.0/8"],
    "a zone": ["fe80::1%1/64"],
    "a bad one": ["10.0.0.0/8", "x"],
}


def test_merge_answers_as_opa_when_networks_are_ordinary(opa_path: Path) -> None:
    calls: list[Operands] = [(texts,) for texts in MERGED.values()]
    calls += [(RegoSet.of(texts),) for texts in MERGED.values()]
    found = compare(opa_path, "net.cidr_merge", BUILTINS["net.cidr_merge"], calls)
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 6)


EXPANDED = {
    "first and last are among them": "192.168.1.1/30",
    "one address": "10.0.0.1/32",
    "the last of IPv4": "255.255.255.255/29",
    "the first of IPv4": "0.0.0.0/29",
    "the last of IPv6": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/125",
    "the first of IPv6": "::/125",
    "IPv4 written as IPv6": "::ffff:10.0.0.0/126",
    "the last below IPv4": "::fffe:ffff:ffff/126",
    "two gaps of which the first is longer": "1:0:0:0:1:0:0:0/127",
    "two gaps of one length": "1:0:0:1:0:0:1:0/127",
    "a gap of one group": "1:0:1:1:1:1:1:0/127",
    "as many as are answered": "10.0.0.0/20",
    "a bad one": "192.168.1.1/33",
    "no prefix": "192.168.1.1",
}


def test_expand_answers_as_opa_when_networks_are_small(opa_path: Path) -> None:
    found = compare(opa_path, "net.cidr_expand", BUILTINS["net.cidr_expand"], [(text,) for text in EXPANDED.values()])
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 2)


@pytest.mark.parametrize("kind", DRAWN)
def test_addresses_agree_with_opa_when_drawn(opa_path: Path, kind: str) -> None:
    _drawn(opa_path, kind, 41)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", DRAWN)
def test_addresses_agree_with_opa_when_many_are_drawn(opa_path: Path, kind: str) -> None:
    for seed in range(42, 62):
        _drawn(opa_path, kind, seed)
