"""Every kind of address, with its neighbours on both sides."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.egress.addresses import AddressClass, address_classes, check_address, classify_address
from gateway.errors import GateMisuse, Refusal

TABLE = [
    ("0.0.0.0", "unspecified"),
    ("0.255.255.255", "unspecified"),
    ("1.0.0.0", "public"),
    ("9.255.255.255", "public"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("11.0.0.0", "public"),
    ("100.63.255.255", "public"),
    ("100.64.0.0", "cgnat"),
    ("100.100.100.199", "cgnat"),
    ("100.100.100.200", "metadata"),
    ("100.100.100.201", "cgnat"),
    ("100.127.255.255", "cgnat"),
    ("100.128.0.0", "public"),
    ("126.255.255.255", "public"),
    ("127.0.0.0", "loopback"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("128.0.0.0", "public"),
    ("168.63.129.15", "public"),
    ("168.63.129.16", "metadata"),
    ("168.63.129.17", "public"),
    ("169.253.255.255", "public"),
    ("169.254.0.0", "link_local"),
    ("169.254.0.22", "link_local"),
    ("169.254.0.23", "metadata"),
    ("169.254.0.24", "link_local"),
    ("169.254.42.41", "link_local"),
    ("169.254.42.42", "metadata"),
    ("169.254.42.43", "link_local"),
    ("169.254.169.253", "link_local"),
    ("169.254.169.254", "metadata"),
    ("169.254.169.255", "link_local"),
    ("169.254.170.2", "metadata"),
    ("169.254.255.255", "link_local"),
    ("169.255.0.0", "public"),
    ("172.15.255.255", "public"),
    ("172.16.0.0", "private"),
    ("172.31.255.255", "private"),
    ("172.32.0.0", "public"),
    ("191.255.255.255", "public"),
    ("192.0.0.0", "reserved"),
    ("192.0.0.192", "metadata"),
    ("192.0.0.255", "reserved"),
    ("192.0.1.0", "public"),
    ("192.0.2.0", "reserved"),
    ("192.0.3.0", "public"),
    ("192.88.98.255", "public"),
    ("192.88.99.1", "translated"),
    ("192.88.100.0", "public"),
    ("192.167.255.255", "public"),
    ("192.168.0.0", "private"),
    ("192.168.255.255", "private"),
    ("192.169.0.0", "public"),
    ("198.17.255.255", "public"),
    ("198.18.0.0", "reserved"),
    ("198.19.255.255", "reserved"),
    ("198.20.0.0", "public"),
    ("198.51.100.1", "reserved"),
    ("203.0.112.255", "public"),
    ("203.0.113.1", "reserved"),
    ("203.0.114.0", "public"),
    ("223.255.255.255", "public"),
    ("224.0.0.0", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.0", "reserved"),
    ("255.255.255.254", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::2", "translated"),
    ("::127.0.0.1", "translated"),
    ("::1:0:0", "reserved"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:7f00:1", "loopback"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:8.8.8.8", "public"),
    ("::ffff:0:127.0.0.1", "translated"),
    ("64:ff9a:ffff::", "reserved"),
    ("64:ff9b::7f00:1", "translated"),
    ("64:ff9b::ffff:ffff", "translated"),
    ("64:ff9b:1::1", "translated"),
    ("64:ff9b:2::1", "reserved"),
    ("100::1", "reserved"),
    ("2001::1", "translated"),
    ("2001:0:ffff::", "translated"),
    ("2001:1::1", "reserved"),
    ("2001:200::1", "public"),
    ("2001:db7:ffff::", "public"),
    ("2001:db8::1", "reserved"),
    ("2001:db9::1", "public"),
    ("2001:ffff::", "public"),
    ("2002:7f00:1::", "translated"),
    ("2003::1", "public"),
    ("2606:4700::1", "public"),
    ("3ffe:ffff::", "public"),
    ("3fff::1", "reserved"),
    ("3fff:1000::", "public"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("fbff::1", "reserved"),
    ("fc00::1", "private"),
    ("fd00:42::41", "private"),
    ("fd00:42::42", "metadata"),
    ("fd00:42::43", "private"),
    ("fd00:c1::a9fe:a9fd", "private"),
    ("fd00:c1::a9fe:a9fe", "metadata"),
    ("fd00:c1::a9fe:a9ff", "private"),
    ("fd00:ec2::253", "private"),
    ("fd00:ec2::254", "metadata"),
    ("fd00:ec2::255", "private"),
    ("fd20:ce::254", "metadata"),
    ("fdff:ffff::1", "private"),
    ("fe00::1", "reserved"),
    ("fe7f:ffff::1", "reserved"),
    ("fe80::1", "link_local"),
    ("fe80::a9fe:a9fd", "link_local"),
    ("fe80::a9fe:a9fe", "metadata"),
    ("fe80::a9fe:a9fe%lo", "metadata"),
    ("fe80::a9fe:a9ff", "link_local"),
    ("fe80::1%lo", "link_local"),
    ("febf:ffff::1", "link_local"),
    ("fec0::1", "private"),
    ("feff::1", "private"),
    ("ff00::1", "multicast"),
    ("ff02::1", "multicast"),
]


@pytest.mark.parametrize(("address", "kind"), TABLE, ids=[address for address, _ in TABLE])
def test_classify_address_names_the_class_when_given(address: str, kind: str) -> None:
    assert classify_address(address) is AddressClass(kind)


EMBEDDED = [
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b::a00:1", "private"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b::ffff:ffff", "broadcast"),
    ("64:ff9b:1::a9fe:a9fe", "metadata"),
    ("64:ff9b:1:a00:0:100::", "private"),
    ("64:ff9b:1:a00:0:100::1", "private"),
    ("64:ff9b:1:a:0:1::", "private"),
    ("64:ff9b:1:0:a:0:100:0", "private"),
    ("64:ff9b:1:fffe:a9:fea9:fe00:0", "metadata"),
    ("2002:7f00:1::", "loopback"),
    ("2002:a9fe:a9fe::1", "metadata"),
    ("2002:c0a8:101:1::1", "private"),
    ("2001:0:808:808:0:0:5601:5601", "metadata"),
    ("2001:0:a00:1:0:0:f7f7:f7f7", "private"),
    ("2001::1", "unspecified"),
    ("2001:0:ffff::", "broadcast"),
    ("::2", "unspecified"),
    ("::127.0.0.1", "loopback"),
    ("::169.254.169.254", "metadata"),
    ("::ffff:0:127.0.0.1", "loopback"),
    ("::ffff:0:a9fe:a9fe", "metadata"),
    ("fe80::5efe:a9fe:a9fe", "metadata"),
    ("fe80::200:5efe:a00:1", "private"),
    ("fd00::5efe:a9fe:a9fe", "metadata"),
    ("2606:4700::200:5efe:7f00:1", "loopback"),
]
CARRIED = {address for address, _ in EMBEDDED}
PLAIN_TABLE = [(address, kind) for address, kind in TABLE if address not in CARRIED]


@pytest.mark.parametrize(("address", "kind"), PLAIN_TABLE, ids=[address for address, _ in PLAIN_TABLE])
def test_check_address_refuses_when_the_class_is_not_named(address: str, kind: str) -> None:
    check_address(address, frozenset({AddressClass(kind)}))
    if kind == "public":
        check_address(address, frozenset())
        return
    with pytest.raises(Refusal) as caught:
        check_address(address, frozenset(AddressClass) - {AddressClass(kind)})
    assert caught.value.code == "egress_forbidden"
    assert address not in str(caught.value) or address == "::"


@pytest.mark.parametrize(("address", "inner"), EMBEDDED, ids=[address for address, _ in EMBEDDED])
def test_check_address_refuses_when_the_class_of_the_address_inside_is_not_named(address: str, inner: str) -> None:
    check_address(address, frozenset(AddressClass))
    with pytest.raises(Refusal) as caught:
        check_address(address, frozenset(AddressClass) - {AddressClass(inner)})
    assert caught.value.code == "egress_forbidden"
    with pytest.raises(Refusal):
        check_address(address, frozenset({classify_address(address)}))


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::808:808",
        "64:ff9b:1::808:808",
        "64:ff9b:1:808:8:800::",
        "64:ff9b:1:0:8:808:800:0",
        "2002:808:808::1",
        "2001:0:808:808:0:0:f7f7:f7f7",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
    ],
)
def test_check_address_admits_a_translated_address_when_the_one_inside_is_public(address: str) -> None:
    check_address(address, frozenset({AddressClass.TRANSLATED}))
    with pytest.raises(Refusal):
        check_address(address, frozenset(AddressClass) - {AddressClass.TRANSLATED})


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "127.0.0.01", "1.2.3.4.5"])
def test_check_address_refuses_when_it_is_no_address(address: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_address(address, frozenset(AddressClass))
    assert caught.value.code == "egress_forbidden"


@given(st.ip_addresses())
def test_classify_address_agrees_with_the_registry_when_it_says_public(address: object) -> None:
    parsed = ip_address(str(address))
    if classify_address(str(address)) is AddressClass.PUBLIC:
        assert not (parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)
        assert not parsed.is_private


def test_address_classes_reads_the_configuration_when_names_are_known() -> None:
    named = address_classes(["loopback", "link-local", "private"])
    assert named == {AddressClass.LOOPBACK, AddressClass.LINK_LOCAL, AddressClass.PRIVATE}


def test_address_classes_is_misuse_when_a_name_is_unknown() -> None:
    with pytest.raises(GateMisuse):
        address_classes(["everything"])
