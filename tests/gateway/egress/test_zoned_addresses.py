"""Addresses with a zone: the zone says where, never what."""

from __future__ import annotations

import pytest

from gateway.egress.addresses import AddressClass, check_address, classify_address
from gateway.errors import Refusal

ZONED = {
    "fd00:ec2::254%eth0": AddressClass.METADATA,
    "fd00:ec2::23%1": AddressClass.METADATA,
    "fe80::1%eth0": AddressClass.LINK_LOCAL,
    "::1%lo": AddressClass.LOOPBACK,
    "fc00::1%eth0": AddressClass.PRIVATE,
    "ff02::1%eth0": AddressClass.MULTICAST,
    "2606:4700::1111%eth0": AddressClass.PUBLIC,
}


@pytest.mark.parametrize("address", ZONED)
def test_classify_address_looks_past_the_zone_when_given(address: str) -> None:
    assert classify_address(address) is ZONED[address]


def test_check_address_refuses_metadata_in_a_zone_when_private_addresses_are_allowed() -> None:
    with pytest.raises(Refusal) as caught:
        check_address("fd00:ec2::254%eth0", frozenset({AddressClass.PRIVATE}))
    assert caught.value.code == "egress_forbidden"
