"""Zones: which names there are, which are the machine's, and how far from UTC a zone is at an instant."""

from __future__ import annotations

import pytest

from pdp.wasm.builtins.values import Declined, Undefined
from pdp.wasm.builtins.zones import NAMES, offset, package_data, zone

SPRING = 1_679_792_400
"""26 March 2023, 01:00 UTC: clocks in the European Union go forward."""


def test_zones_are_those_of_the_package_when_loaded() -> None:
    assert len(NAMES) > 590
    assert {"Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC", "GMT"} <= NAMES
    assert not any(name.startswith(("/", ".", "posix/", "right/")) or ".." in name for name in NAMES)
    assert all(offset(zone(name), SPRING) for name in NAMES)


@pytest.mark.parametrize("name", ["", "UTC"])
def test_zone_is_utc_without_bounds_when_named_so(name: str) -> None:
    assert [offset(zone(name), seconds) for seconds in (-(2**40), 0, 2**40)] == [(0, "UTC")] * 3


NOWHERE = {
    "no zone has the name": "Europe/Nowhere",
    "it is a folder": "Europe",
    "it is another file of the package": "tzdata.zi",
    "it leads out of the folder": "../zones",
    "it leads out of the folder and back": "Europe/../UTC",
    "it has two dots anywhere": "..UTC",
    "it starts at the root": "/UTC",
    "it starts with a backslash": "\\UTC",
    "it has backslashes": "Europe\\Berlin",
    "it has a NUL": "UTC\0",
    "it ends in a new line": "UTC\n",
    "it is a build's name": "posix",
    "it is a rule": "CET-1CEST,M3.5.0,M10.5.0/3",
    "it is an offset": "+01:00",
}


@pytest.mark.parametrize("name", NOWHERE.values(), ids=NOWHERE.keys())
def test_zone_is_undefined_when(name: str) -> None:
    with pytest.raises(Undefined):
        zone(name)


OF_THE_MACHINE = {
    "it is the machine's own": "Local",
    "it is the machine's own file": "localtime",
    "it is the machine's default rule": "posixrules",
    "it names a build": "posix/Europe/Berlin",
    "it names a build with leap seconds": "right/UTC",
    "it is a path with two slashes": "Europe//Berlin",
    "it is a path from here": "./Europe/Berlin",
    "it differs in case": "europe/berlin",
    "it is UTC in small letters": "utc",
}


@pytest.mark.parametrize("name", OF_THE_MACHINE.values(), ids=OF_THE_MACHINE.keys())
def test_zone_is_declined_when(name: str) -> None:
    with pytest.raises(Declined, match="only the machine knows"):
        zone(name)


OFFSETS = {
    "the second before clocks change": ("Europe/Berlin", SPRING - 1, 3_600, "CET"),
    "the second at which clocks change": ("Europe/Berlin", SPRING, 7_200, "CEST"),
    "the first second of 1970": ("Europe/Berlin", 0, 3_600, "CET"),
    "an offset with half an hour": ("Asia/Kolkata", SPRING, 19_800, "IST"),
    "a change of half an hour": ("Australia/Lord_Howe", 1_700_000_000, 39_600, "+11"),
    "an offset with seconds": ("Africa/Monrovia", 0, -2_670, "MMT"),
    "a year beyond the last rule": ("Europe/Berlin", 9_214_646_400, 3_600, "CET"),
    "a zone that is UTC by another name": ("Etc/UTC", SPRING, 0, "UTC"),
}


@pytest.mark.parametrize(("name", "seconds", "east", "abbreviation"), OFFSETS.values(), ids=OFFSETS.keys())
def test_offset_is_known_when_asked_for(name: str, seconds: int, east: int, abbreviation: str) -> None:
    assert offset(zone(name), seconds) == (east, abbreviation)


@pytest.mark.parametrize("name", ["Europe/Berlin", "Etc/UTC", "GMT"])
def test_offset_is_declined_when_the_instant_is_before_1970(name: str) -> None:
    with pytest.raises(Declined, match="before 1970"):
        offset(zone(name), -1)


def test_data_is_refused_when_a_package_has_none() -> None:
    with pytest.raises(ImportError, match="sys has no data"):
        package_data("sys", "zones")
    with pytest.raises(OSError, match="nowhere"):
        package_data("tzdata", "nowhere")
