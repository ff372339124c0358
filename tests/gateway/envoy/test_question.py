"""Which instance is asked about, and what Envoy does to the headers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.envoy.check_request import CheckRequest
from gateway.envoy.question import (
    INSTANCE_MAX_CHARACTERS,
    check_route,
    header_changes,
    proxy_request,
    request_head,
    route_instance,
)
from gateway.errors import Refusal
from gateway.flow.values import ProxyRequest
from tests.gateway.flow.playbook import NOW, plan


def asked(target: str = "/api/items", host: str = "desk.example", body: bytes = b"") -> CheckRequest:
    return CheckRequest("GET", target, host, (), body, {})


def proxied(question: CheckRequest, base_url: str = "http://desk.example") -> ProxyRequest:
    head = request_head(question, uri_max_bytes=8192)
    return proxy_request(question, head, replace(plan(), base_url=base_url), call_id="c", now=NOW)


def test_proxy_request_keeps_path_and_segments_when_the_instance_has_no_path() -> None:
    made = proxied(asked("/api/items/%41?q=1", body=b"x"))
    assert (made.path, made.segments, made.has_body) == ("/api/items/%41", ("api", "items", "A"), True)
    assert made.prefer.wait_seconds == 0


def test_proxy_request_takes_the_path_below_when_the_instance_has_one() -> None:
    made = proxied(asked("/tenant/one/api/items"), "http://desk.example/tenant/one")
    assert (made.path, made.segments) == ("/api/items", ("api", "items"))


HOSTS = {
    "without its usual port": ("http://desk.example", "desk.example"),
    "with its usual port": ("http://desk.example", "desk.example:80"),
    "with the usual port of TLS": ("https://desk.example", "DESK.example:443"),
    "with another port": ("http://desk.example:8080", "desk.example:8080"),
    "as an address of version 6": ("http://[::1]:8080", "[::1]:8080"),
}
OTHER_HOSTS = {
    "another host": ("http://desk.example", "evil.example"),
    "another port": ("http://desk.example", "desk.example:81"),
    "the port is missing": ("http://desk.example:8080", "desk.example"),
    "a longer host": ("http://desk.example", "desk.example.evil.example"),
    "the host behind a user": ("http://desk.example", "desk.example@evil.example"),
    "a dot at the end": ("http://desk.example", "desk.example."),
    "no host": ("http://desk.example", ""),
}


@pytest.mark.parametrize(("base_url", "host"), HOSTS.values(), ids=HOSTS.keys())
def test_proxy_request_is_for_the_instance_when_its_host_is_named(base_url: str, host: str) -> None:
    assert proxied(asked(host=host), base_url).path == "/api/items"


@pytest.mark.parametrize(("base_url", "host"), OTHER_HOSTS.values(), ids=OTHER_HOSTS.keys())
def test_proxy_request_is_unclassified_when_it_names(base_url: str, host: str) -> None:
    with pytest.raises(Refusal) as refused:
        proxied(asked(host=host), base_url)
    assert refused.value.code == "unclassified"


@pytest.mark.parametrize("target", ["/other/api/items", "/tenant/onetwo/api", "/tenant/one"])
def test_proxy_request_is_unclassified_when_the_path_lies_outside(target: str) -> None:
    with pytest.raises(Refusal) as refused:
        proxied(asked(target), "http://desk.example/tenant/one")
    assert refused.value.code == "unclassified"


@pytest.mark.parametrize("target", ["/a/../b", "/a/%2e%2e/b", "//a", "/a;b", "http://desk.example/api", "", "*"])
def test_request_head_is_refused_when_the_target_has_no_single_reading(target: str) -> None:
    with pytest.raises(Refusal) as refused:
        request_head(asked(target), uri_max_bytes=8192)
    assert refused.value.code == "malformed_request"


ROUTES = {
    "says nothing": {},
    "names only the instance": {"tidegate_instance": "desk"},
    "says something else of bodies": {"tidegate_instance": "desk", "tidegate_body": "partial"},
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
def test_check_route_refuses_when_it(route: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        check_route(route)
    assert refused.value.code == "malformed_request"


def test_route_instance_is_cut_when_it_is_long() -> None:
    named = asked()._replace(route={"tidegate_instance": "x" * 500, "tidegate_body": "whole"})
    check_route(named.route)
    assert route_instance(named) == "x" * INSTANCE_MAX_CHARACTERS
    assert route_instance(asked()) == ""


def test_header_changes_take_out_what_was_not_decided() -> None:
    held = (
        ("host", "desk.example"),
        ("content-length", "3"),
        ("authorization", "Bearer t"),
        ("accept", "a"),
        ("accept-encoding", "gzip"),
        ("x-evil", "1"),
        ("x-evil", "2"),
    )
    changes = header_changes(held, (("accept", "a"), ("accept-encoding", "identity")))
    assert changes.remove == ("authorization", "x-evil")
    assert changes.put == (("accept-encoding", "identity"),)


def test_header_changes_are_none_when_everything_was_decided() -> None:
    pairs = (("accept", "a"), ("accept-encoding", "identity"))
    assert header_changes(pairs, pairs) == ((), ())
