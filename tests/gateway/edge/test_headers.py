"""What is refused on sight, and preferences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.headers import (
    METHODS,
    Prefer,
    RequestHead,
    check_head,
    check_host,
    connection_nominated,
    prefer,
)
from gateway.edge.url import canonical_path
from gateway.errors import Refusal


def head(*headers: tuple[str, str], method: str = "POST") -> RequestHead:
    return RequestHead(method, canonical_path("/a"), (("host", "gate"), *headers))


REFUSED_HEADERS = {
    "X-HTTP-Method-Override": [("x-http-method-override", "DELETE")],
    "X-HTTP-Method": [("x-http-method", "DELETE")],
    "X-Method-Override": [("x-method-override", "DELETE")],
    "X-Original-URL": [("x-original-url", "/admin")],
    "X-Rewrite-URL": [("x-rewrite-url", "/admin")],
    "length and chunked": [("content-length", "3"), ("transfer-encoding", "chunked")],
    "two lengths": [("content-length", "3"), ("content-length", "4")],
    "two equal lengths": [("content-length", "3"), ("content-length", "3")],
    "a negative length": [("content-length", "-1")],
    "a signed length": [("content-length", "+1")],
    "a list of lengths": [("content-length", "3, 3")],
    "a length with a space": [("content-length", "3 ")],
    "an enormous length": [("content-length", "9" * 19)],
    "gzip as transfer coding": [("transfer-encoding", "gzip, chunked")],
    "identity as transfer coding": [("transfer-encoding", "identity")],
    "chunked twice": [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
    "a compressed body": [("content-encoding", "gzip")],
    "a doubly coded body": [("content-encoding", "identity, br")],
    "an upgrade": [("upgrade", "websocket")],
    "an upgrade to HTTP/2": [("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA")],
    "announced trailers": [("trailer", "x-checksum")],
    "another charset": [("content-type", "application/json; charset=utf-16")],
    "another charset in quotes": [("content-type", 'application/json; charset="ISO-8859-1"')],
    "two charsets": [("content-type", "application/json; charset=utf-8; charset=utf-7")],
    "an empty charset": [("content-type", "application/json; charset=")],
    "two content types": [("content-type", "application/json"), ("content-type", "text/plain")],
    "two authorizations": [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    "two idempotency keys": [("idempotency-key", "a"), ("idempotency-key", "b")],
    "two hosts": [("host", "other")],
    "another expectation": [("expect", "200-ok")],
    "a content type that is nominated": [("connection", "content-type"), ("content-type", "application/json")],
    "a content type among others": [("connection", "close, Content-Type ,x-a")],
    "a content type in a second header": [("connection", "close"), ("connection", "content-type")],
    "a length that is nominated": [("connection", "content-length")],
    "a host that is nominated": [("connection", "Host")],
    "a token that is nominated": [("connection", "authorization")],
    "a service's token that is nominated": [("connection", "x-api-key")],
    "an idempotency key that is nominated": [("connection", "idempotency-key")],
    "a ticket that is nominated": [("connection", "tidegate-ticket")],
    "a preference that is nominated": [("connection", "prefer")],
    "a cookie that is nominated": [("connection", "cookie")],
}


@pytest.mark.parametrize("headers", REFUSED_HEADERS.values(), ids=REFUSED_HEADERS.keys())
def test_check_head_refuses_when_a_header_changes_the_request(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Refusal) as caught:
        check_head(head(*headers))
    assert caught.value.code == "malformed_request"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", ""])
def test_check_head_refuses_when_the_method_is_not_forwarded(method: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_head(head(method=method))
    assert caught.value.code == "method_not_allowed"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_check_head_accepts_when_the_method_is_plain(method: str) -> None:
    check_head(head(method=method))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("content-length", "0")], id="an empty body"),
        pytest.param([("transfer-encoding", "Chunked")], id="chunked in any case"),
        pytest.param([("content-encoding", "identity")], id="no coding"),
        pytest.param([("content-type", "application/json; charset=UTF-8")], id="UTF-8"),
        pytest.param([("content-type", 'text/plain;charset="utf-8"')], id="UTF-8 in quotes"),
        pytest.param([("expect", "100-Continue")], id="the one expectation"),
        pytest.param([("accept", "a"), ("accept", "b"), ("cookie", "x"), ("connection", "close")], id="lists"),
        pytest.param([("connection", "keep-alive"), ("connection", "x-a")], id="connection twice"),
    ],
)
def test_check_head_accepts_when_headers_are_plain(headers: list[tuple[str, str]]) -> None:
    check_head(head(*headers))


def test_request_head_gives_the_first_value_when_asked() -> None:
    subject = head(("accept", "a"), ("accept", "b"))
    assert subject.get("accept") == "a"
    assert subject.get("x-none") is None


@pytest.mark.parametrize("host", ["gate:8080", "Gate:8080", " gate:8080 "])
def test_check_host_accepts_when_the_host_is_known(host: str) -> None:
    check_host((("host", host),), frozenset({"gate:8080"}))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((), id="none"),
        pytest.param((("host", "evil.example"),), id="another"),
        pytest.param((("host", "gate:8081"),), id="another port"),
        pytest.param((("host", "gate:8080"), ("host", "gate:8080")), id="two"),
    ],
)
def test_check_host_refuses_when_the_host_is_unknown(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Refusal) as caught:
        check_host(headers, frozenset({"gate:8080"}))
    assert caught.value.code == "malformed_request"


def test_connection_nominated_lists_every_option_when_headers_repeat() -> None:
    headers = (("connection", "close, X-Secret"), ("accept", "a"), ("connection", "authorization,,"))
    assert connection_nominated(headers) == {"close", "x-secret", "authorization"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], Prefer(), id="none"),
        pytest.param(["wait=10"], Prefer(10), id="wait"),
        pytest.param(['wait="10"'], Prefer(10), id="wait in quotes"),
        pytest.param(["respond-async, wait=10"], Prefer(10, True), id="both"),
        pytest.param(["Respond-Async"], Prefer(None, True), id="any case"),
        pytest.param(["respond-async", "wait=5"], Prefer(5, True), id="two headers"),
        pytest.param(["wait=5, wait=9"], Prefer(5), id="the first counts"),
        pytest.param(["wait=-1"], Prefer(), id="a negative wait is none"),
        pytest.param(["wait=1e9"], Prefer(), id="no plain number"),
        pytest.param(["wait=9999999"], Prefer(), id="a number that is too long"),
        pytest.param(["wait"], Prefer(), id="no number"),
        pytest.param(["return=minimal; foo=1, wait=3"], Prefer(3), id="others are ignored"),
        pytest.param(['foo="a, wait=9", wait=2'], Prefer(2), id="quotes hide commas"),
        pytest.param(["wait = 7 ; x"], Prefer(7), id="spaces and parameters"),
        pytest.param(["wait; x=5"], Prefer(), id="a parameter is no value"),
        pytest.param(["respond-async; x=1"], Prefer(None, True), id="a parameter beside a name"),
        pytest.param([',,"wait=5",, wait=6'], Prefer(6), id="a quoted text is no preference"),
        pytest.param(['foo="a, wait=5'], Prefer(), id="quotes that never end"),
        pytest.param(["wait=5" + " " * 1018], Prefer(5), id="as long as may be"),
        pytest.param(["wait=5" + " " * 1019], Prefer(), id="longer than may be"),
        pytest.param(["wait=5," + " " * 600, " " * 600], Prefer(), id="longer than may be in two headers"),
    ],
)
def test_prefer_reads_when_the_header_states(values: list[str], expected: Prefer) -> None:
    assert prefer([("prefer", value) for value in values]) == expected


@given(st.text(max_size=80))
def test_prefer_never_fails_when_fed_anything(value: str) -> None:
    read = prefer([("prefer", value)])
    assert read.wait_seconds is None or 0 <= read.wait_seconds < 10**6
