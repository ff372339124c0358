"""Networks and addresses: what lies in what, what is refused, and what is declined."""

from __future__ import annotations

import pytest

from pdp.wasm.builtins.addresses import ADDRESSES_MAX, BUILTINS, MEMBERS_MAX, RESULT_MAX_BYTES
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value, order

MATCHES = BUILTINS["net.cidr_contains_matches"]
IS_VALID = BUILTINS["net.cidr_is_valid"]
MERGE = BUILTINS["net.cidr_merge"]
EXPAND = BUILTINS["net.cidr_expand"]


def _count(found: Value) -> int:
    assert isinstance(found, RegoSet)
    return len(found.members)


CONTAINED = {
    "an inner address": ("10.0.0.0/8", "10.255.255.255"),
    "a network with host bits": ("10.9.9.9/8", "10.0.0.0"),
    "a prefix with zeros before it": ("10.0.0.0/08", "10.0.0.1"),
    "a prefix with many zeros before it": ("10.0.0.0/" + "0" * 100 + "8", "10.0.0.1"),
    "an address written as IPv6": ("10.0.0.0/8", "::ffff:10.0.0.1"),
    "an address written as IPv6 in hexadecimal": ("10.0.0.0/8", "::FFFF:A00:1"),
    "a network written as IPv6": ("::ffff:10.0.0.0/104", "10.0.0.1"),
    "all of IPv4 written as IPv6": ("::ffff:0:0/96", "203.0.113.9"),
    "a network within": ("10.0.0.0/8", "10.1.0.0/16"),
    "the network itself": ("::/0", "::/0"),
    "loopback": ("::1/128", "0:0:0:0:0:0:0:1"),
    "link local in capitals": ("fe80::/10", "FEBF::1"),
    "a compatible address": ("::/96", "::127.0.0.1"),
    "NAT64": ("64:ff9b::/96", "64:ff9b::10.0.0.1"),
}

OUTSIDE = {
    "the address before": ("10.0.0.0/8", "9.255.255.255"),
    "the address after": ("10.0.0.0/8", "11.0.0.0"),
    "a network around": ("10.0.0.0/8", "10.0.0.0/7"),
    "IPv4 in all of IPv6": ("::/0", "10.0.0.1"),
    "IPv4 in a little more than IPv4": ("::ffff:0:0/95", "10.0.0.1"),
    "IPv6 in all of IPv4": ("0.0.0.0/0", "::1"),
    "a compatible address": ("10.0.0.0/8", "::10.0.0.1"),
    "a network that ends in IPv4": ("::/0", "::fffe:0:0/95"),
}

REFUSED = [
    "",
    "localhost",
    "167772161",
    "10.0.1",
    "010.0.0.1",
    "10.0.0.256",
    "10.0.0.1\n",
    " 10.0.0.1",
    "\u0661\u0660.0.0.1",
    "1_0.0.0.1",
    "10.0.0.1:80",
    "[::1]",
    "fe80::1%eth0",
    "::1%1",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::00001",
    "::g",
    "::1.2.3.4:5",
    "::ffff:10.0.0.01",
    "::ffff:10.0.1",
]

BAD_PREFIXES = ["", "+8", "-8", "33", "0x8", " 8", "8 ", "8\n", "\u0668", "8/8", "255.0.0.0", "1" * 5000]


@pytest.mark.parametrize("pair", CONTAINED.values(), ids=CONTAINED.keys())
def test_contains_matches_gives_the_pair_when_the_network_contains_it(pair: tuple[str, str]) -> None:
    assert MATCHES(*pair) == RegoSet((list(pair),))


@pytest.mark.parametrize("pair", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_contains_matches_gives_nothing_when_the_network_does_not_contain_it(pair: tuple[str, str]) -> None:
    assert MATCHES(*pair) == RegoSet(())


@pytest.mark.parametrize("text", REFUSED)
def test_contains_matches_is_undefined_when_a_text_is_no_address(text: str) -> None:
    with pytest.raises(Undefined):
        MATCHES("0.0.0.0/0", text)
    with pytest.raises(Undefined):
        MATCHES(f"{text}/8", "10.0.0.1")
    assert IS_VALID(f"{text}/8") is False


@pytest.mark.parametrize("prefix", BAD_PREFIXES)
def test_is_valid_is_false_when_a_prefix_is_none(prefix: str) -> None:
    assert IS_VALID(f"10.0.0.0/{prefix}") is False
    assert IS_VALID("10.0.0.0/8") is True


@pytest.mark.parametrize("value", [None, True, 10, [], {}, RegoSet(("10.0.0.0/8",)), "10.0.0.1", "::/129", "::/0x"])
def test_is_valid_is_false_when_an_operand_is_no_network(value: Value) -> None:
    assert IS_VALID(value) is False


NAMED: dict[str, tuple[Value, Value, list[list[Value]]]] = {
    "arrays by index": (["11.0.0.0/8", "10.0.0.0/8"], ["1.1.1.1", "10.0.0.1"], [[1, 1]]),
    "objects by key": ({"a": "10.0.0.0/8", "b": ["10.0.0.0/9"]}, {"x": "10.0.0.1"}, [["a", "x"], ["b", "x"]]),
    "sets by member": (RegoSet((["10.0.0.0/8", 1],)), RegoSet(("10.0.0.1",)), [[["10.0.0.0/8", 1], "10.0.0.1"]]),
    "a network twice": (["10.0.0.0/8", "10.0.0.0/8"], "10.0.0.1", [[0, "10.0.0.1"], [1, "10.0.0.1"]]),
    "no networks, whatever the other side": ([], [1], []),
    "no addresses, whatever the networks": (["no"], [], []),
    "a side that can have no items": (None, ["no"], []),
    "the other side that can have no items": (["no"], 1, []),
}


@pytest.mark.parametrize(("networks", "addresses", "pairs"), NAMED.values(), ids=NAMED.keys())
def test_contains_matches_names_items_when_a_side_has_many(
    networks: Value, addresses: Value, pairs: list[list[Value]]
) -> None:
    assert order(MATCHES(networks, addresses)) == order(RegoSet(tuple(pairs)))


@pytest.mark.parametrize("item", [None, 1, [], [1], {"a": "10.0.0.1"}, [["10.0.0.1"]]])
def test_contains_matches_is_undefined_when_an_item_has_no_text(item: Value) -> None:
    with pytest.raises(Undefined):
        MATCHES(["10.0.0.0/8"], ["10.0.0.1", item])
    with pytest.raises(Undefined):
        MATCHES([item], ["10.0.0.1"])
    with pytest.raises(Undefined):
        MATCHES(RegoSet(([1],)), RegoSet(("10.0.0.1",)))


def test_contains_matches_declines_when_pairs_are_too_many() -> None:
    side = ["10.0.0.0/8"] * 100
    assert _count(MATCHES(side, ["10.0.0.1"] * 90)) == 9_000 < MEMBERS_MAX
    with pytest.raises(Declined):
        MATCHES(side, ["10.0.0.1"] * 110)


def test_contains_matches_declines_when_pairs_are_too_long() -> None:
    large = RegoSet((["10.0.0.0/8", "x" * 10_000],))
    assert _count(MATCHES(large, ["10.0.0.1"] * 9)) == 9
    with pytest.raises(Declined):
        MATCHES(large, ["10.0.0.1"] * (RESULT_MAX_BYTES // 10_000))


EXPANDED = {
    "host bits do not matter": ("192.168.1.1/30", ["192.168.1.0", "192.168.1.1", "192.168.1.2", "192.168.1.3"]),
    "the last addresses": ("255.255.255.255/31", ["255.255.255.254", "255.255.255.255"]),
    "an address written as IPv6": ("::ffff:10.0.0.1/128", ["10.0.0.1"]),
    "a gap at the start": ("::2/127", ["::2", "::3"]),
    "a gap that is all": ("::/128", ["::"]),
    "a gap at the end": ("1:2::/128", ["1:2::"]),
    "the first of two gaps": ("1:0:0:2:3:0:0:4/128", ["1::2:3:0:0:4"]),
    "the longer of two gaps": ("1:0:0:2:0:0:0:4/128", ["1:0:0:2::4"]),
    "a gap of one group stays": ("1:0:2:3:4:5:6:ABCD/128", ["1:0:2:3:4:5:6:abcd"]),
}


@pytest.mark.parametrize(("text", "addresses"), EXPANDED.values(), ids=EXPANDED.keys())
def test_expand_gives_every_address_when_a_network_is_small(text: str, addresses: list[str]) -> None:
    assert EXPAND(text) == RegoSet(tuple(addresses))


@pytest.mark.parametrize("value", [None, 1, ["10.0.0.0/30"], "10.0.0.1", "10.0.0.0/33"])
def test_expand_is_undefined_when_an_operand_is_no_network(value: Value) -> None:
    with pytest.raises(Undefined):
        EXPAND(value)


def test_expand_declines_when_addresses_are_too_many() -> None:
    assert _count(EXPAND("10.0.0.0/20")) == ADDRESSES_MAX
    for text in ("10.0.0.0/19", "0.0.0.0/0", "::/0", "2001:db8::/64"):
        with pytest.raises(Declined):
            EXPAND(text)


MERGED: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "one with host bits": (["10.1.2.3/8"], ["10.0.0.0/8"]),
    "neighbours": (["10.0.0.0/9", "10.128.0.0/9"], ["10.0.0.0/8"]),
    "neighbours of which none begins a larger one": (["10.0.1.0/24", "10.0.2.0/24"], ["10.0.1.0/24", "10.0.2.0/24"]),
    "one within the other": (["10.3.0.0/16", "10.0.0.0/8"], ["10.0.0.0/8"]),
    "far apart": (["10.0.0.0/8", "12.0.0.0/8"], ["10.0.0.0/8", "12.0.0.0/8"]),
    "an address of class A": (["10.1.2.3"], ["10.1.2.3/8"]),
    "an address of class B": (["172.16.1.1"], ["172.16.1.1/16"]),
    "an address of class C": (["192.168.1.1"], ["192.168.1.1/24"]),
    "an address and a neighbour": (["10.1.2.3", "11.0.0.0/8"], ["10.0.0.0/7"]),
    "the first addresses": (["0.0.0.0/32", "0.0.0.1/32"], ["0.0.0.0/31"]),
    "IPv6 neighbours": (["2001:db8::/33", "2001:db8:8000::/33"], ["2001:db8::/32"]),
    "IPv6 at the start": (["::1/128", "::2/127", "::/128"], ["::/126"]),
    "IPv6 near the start": (["::1/128", "::2/128"], ["::1/128", "::2/128"]),
    "IPv4 below and IPv6 above": (["10.0.0.0/8", "fe80::/10", "::1/128"], ["10.0.0.0/8", "fe80::/10", "::1/128"]),
    "all of IPv6 takes in IPv4": (["10.0.0.0/8", "::/0"], ["::/0"]),
}


@pytest.mark.parametrize(("networks", "merged"), MERGED.values(), ids=MERGED.keys())
def test_merge_gives_the_fewest_networks_when_some_touch(networks: list[str], merged: list[str]) -> None:
    assert MERGE(networks) == RegoSet.of(merged)
    assert MERGE(RegoSet.of(networks)) == RegoSet.of(merged)


@pytest.mark.parametrize("value", [None, "10.0.0.0/8", {"a": "10.0.0.0/8"}, [1], ["no"], ["::1"], ["10.0.0.0/33"]])
def test_merge_is_undefined_when_a_member_is_no_network(value: Value) -> None:
    with pytest.raises(Undefined):
        MERGE(value)


UNMERGED = {
    "IPv4 written as IPv6": ["::ffff:10.0.0.0/104"],
    "a network that begins with a zero octet": ["64:ff9b::/97", "64:ff9b::8000:0/97"],
    "the end of IPv4 and what follows": ["255.255.255.255/32", "::1:0:0:0/128"],
    "beside IPv4": ["::fffe:ffff:ffff/128", "::/80", "::1:0:0:0/128"],
}


@pytest.mark.parametrize("networks", UNMERGED.values(), ids=UNMERGED.keys())
def test_merge_declines_when_opa_errs_or_crashes(networks: list[str]) -> None:
    with pytest.raises(Declined):
        MERGE(networks)


def test_merge_declines_when_networks_are_too_many() -> None:
    spread = [
        f"{first}.{second}.{third}.{0 if third % 2 else 128}/25"
        for first in range(4)
        for second in range(256)
        for third in range(100)
    ]
    with pytest.raises(Declined):
        MERGE(spread)
