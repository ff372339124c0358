"""Under which names a listener may be addressed, and that it may be addressed under no other."""

from __future__ import annotations

import pytest

from gateway.edge.headers import check_host
from gateway.errors import Refusal
from gateway.hosts import own_hosts, with_port

LOOPBACK = {"localhost:8080", "127.0.0.1:8080", "[::1]:8080"}


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        pytest.param("127.0.0.1", LOOPBACK, id="loopback"),
        pytest.param("::1", LOOPBACK, id="loopback of IPv6"),
        pytest.param("localhost", LOOPBACK, id="loopback by name"),
        pytest.param("127.0.0.9", {*LOOPBACK, "127.0.0.9:8080"}, id="another loopback address"),
        pytest.param("10.0.0.7", {"10.0.0.7:8080"}, id="a private address"),
        pytest.param("fd00::7", {"[fd00::7]:8080"}, id="a private address of IPv6"),
        pytest.param("0.0.0.0", {"0.0.0.0:8080"}, id="every address"),
        pytest.param("Gate.Example", {"gate.example:8080"}, id="a name"),
        pytest.param("127.0.0.1.evil.example", {"127.0.0.1.evil.example:8080"}, id="a name that looks like loopback"),
    ],
)
def test_own_hosts_are_the_address_and_the_names_of_loopback(address: str, hosts: set[str]) -> None:
    assert own_hosts(address, 8080) == hosts


def test_own_hosts_need_no_port_when_it_is_the_one_of_http() -> None:
    assert own_hosts("10.0.0.7", 80) == {"10.0.0.7:80", "10.0.0.7"}


def test_with_port_is_lower_case() -> None:
    assert with_port(["Gate"], 1) == {"gate:1"}


REFUSED = [
    pytest.param((), id="no host"),
    pytest.param((("host", ""),), id="an empty host"),
    pytest.param((("host", "evil.example:8080"),), id="another name"),
    pytest.param((("host", "127.0.0.1"),), id="no port"),
    pytest.param((("host", "127.0.0.1:8081"),), id="another port"),
    pytest.param((("host", "127.0.0.1:8080.evil.example"),), id="a name behind ours"),
    pytest.param((("host", "a@127.0.0.1:8080"),), id="a user name before ours"),
    pytest.param((("host", "127.0.0.1:8080,evil.example"),), id="a list"),
    pytest.param((("host", "127.0.0.1:8080"), ("host", "127.0.0.1:8080")), id="the same twice"),
    pytest.param((("x-forwarded-host", "127.0.0.1:8080"),), id="only what a proxy says"),
]


@pytest.mark.parametrize("headers", REFUSED)
def test_host_is_refused_when_it_is_none_of_the_listeners(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Refusal) as caught:
        check_host(headers, own_hosts("127.0.0.1", 8080), lambda: own_hosts("127.0.0.1", 8080))
    assert caught.value.code == "malformed_request"


def test_host_is_accepted_when_only_the_address_reached_has_it() -> None:
    check_host((("host", "10.0.0.7:8080"),), frozenset(), lambda: own_hosts("10.0.0.7", 8080))
