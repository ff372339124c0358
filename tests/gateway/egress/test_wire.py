"""Requests as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.egress.wire import Origin, body_framing, declared_length, encode_head, parse_origin, split_url
from gateway.errors import GateMisuse

ORIGIN = Origin("http", "service.example", 80)


@pytest.mark.parametrize(
    ("base", "origin", "authority"),
    [
        pytest.param("http://a.example", Origin("http", "a.example", 80), "a.example", id="http"),
        pytest.param("HTTPS://A.Example", Origin("https", "a.example", 443), "a.example", id="https in capitals"),
        pytest.param("https://a.example:443", Origin("https", "a.example", 443), "a.example", id="its own port"),
        pytest.param("https://a.example:80", Origin("https", "a.example", 80), "a.example:80", id="the other's port"),
        pytest.param("http://127.0.0.1:9501", Origin("http", "127.0.0.1", 9501), "127.0.0.1:9501", id="an address"),
        pytest.param("http://[::1]:9501", Origin("http", "::1", 9501), "[::1]:9501", id="an address in brackets"),
        pytest.param("http://[::1]", Origin("http", "::1", 80), "[::1]", id="brackets alone"),
    ],
)
def test_parse_origin_reads_when_the_base_is_plain(base: str, origin: Origin, authority: str) -> None:
    assert parse_origin(base) == origin
    assert origin.authority == authority


@pytest.mark.parametrize(
    "base",
    [
        "ftp://a",
        "a.example",
        "http://",
        "http://a@b",
        "http://a:0",
        "http://a:65536",
        "http://a:b",
        "http://a\r\nb",
        "//a",
    ],
)
def test_parse_origin_is_misuse_when_the_base_is(base: str) -> None:
    with pytest.raises(GateMisuse):
        parse_origin(base)


def test_split_url_leaves_the_target_untouched() -> None:
    assert split_url("http://a.example:81/x/%2e%2e/y?q=%20#") == (Origin("http", "a.example", 81), "/x/%2e%2e/y?q=%20#")


@pytest.mark.parametrize("url", ["http://a.example", "/a", "a", ""])
def test_split_url_is_misuse_when_the_url_is(url: str) -> None:
    with pytest.raises(GateMisuse):
        split_url(url)


def test_encode_head_writes_fields_as_they_are_and_framing_once() -> None:
    headers = [
        ("X-Odd-Case", "a"),
        ("x-raw", "\xff"),
        ("X-Odd-Case", "b"),
        ("Host", "evil.example"),
        ("Content-Length", "99"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "X-Odd-Case"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("Keep-Alive", "1"),
        ("Proxy-Authorization", "x"),
    ]
    assert encode_head("PATCH", ORIGIN, "/a/%2e%2e?b", headers, "Content-Length: 3") == (
        b"PATCH /a/%2e%2e?b HTTP/1.1\r\nHost: service.example\r\nX-Odd-Case: a\r\nx-raw: \xff\r\nX-Odd-Case: b\r\n"
        b"Content-Length: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "target", "header"),
    [
        pytest.param("GET /evil HTTP/1.1\r\nX:", "/", ("a", "b"), id="a method with a line end"),
        pytest.param("", "/", ("a", "b"), id="no method"),
        pytest.param("GET", "/a b", ("a", "b"), id="a target with a space"),
        pytest.param("GET", "/a\r\nb", ("a", "b"), id="a target with a line end"),
        pytest.param("GET", "a", ("a", "b"), id="a target without a slash"),
        pytest.param("GET", "/ä", ("a", "b"), id="a target that is not ASCII"),
        pytest.param("GET", "/", ("a b", "c"), id="a name with a space"),
        pytest.param("GET", "/", ("a:", "c"), id="a name with a colon"),
        pytest.param("GET", "/", ("", "c"), id="no name"),
        pytest.param("GET", "/", ("a", "b\r\nc: d"), id="a value with a line end"),
        pytest.param("GET", "/", ("a", "b\nc"), id="a value with a bare line feed"),
        pytest.param("GET", "/", ("a", "b\0"), id="a value with a null byte"),
        pytest.param("GET", "/", ("a", "\u0430"), id="a value beyond latin-1"),
    ],
)
def test_encode_head_is_misuse_when_it_would_not_be_one_request(
    method: str, target: str, header: tuple[str, str]
) -> None:
    with pytest.raises(GateMisuse):
        encode_head(method, ORIGIN, target, [header], None)


@given(st.text(max_size=20), st.text(max_size=20))
def test_encode_head_never_writes_a_second_line_when_fed_anything(name: str, value: str) -> None:
    try:
        head = encode_head("GET", ORIGIN, "/", [(name, value)], None)
    except GateMisuse:
        return
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") <= 4
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "size", "framing"),
    [
        pytest.param("GET", None, None, id="a method without content"),
        pytest.param("DELETE", None, None, id="a deletion without content"),
        pytest.param("POST", None, "Content-Length: 0", id="a method with content and none"),
        pytest.param("DELETE", 3, "Content-Length: 3", id="a deletion with content"),
        pytest.param("POST", 0, "Content-Length: 0", id="empty content"),
    ],
)
def test_body_framing_says_the_length_when(method: str, size: int | None, framing: str | None) -> None:
    assert body_framing(method, size) == framing


def test_declared_length_reads_when_it_stands_once_or_repeats_itself() -> None:
    assert declared_length([]) is None
    assert declared_length([("Content-Length", " 5 ")]) == 5
    assert declared_length([("content-length", "5"), ("Content-Length", "5")]) == 5


@pytest.mark.parametrize("values", [["5", "6"], ["-1"], ["x"], [""], ["9" * 19]])
def test_declared_length_is_misuse_when_it_is_no_one_number(values: list[str]) -> None:
    with pytest.raises(GateMisuse):
        declared_length([("content-length", value) for value in values])
