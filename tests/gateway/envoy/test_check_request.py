"""Reading Envoy's question: exact octets or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envoy.check_request import CheckRequest, read_check
from gateway.envoy.wire import octets_field, text_field
from gateway.errors import Refusal
from tests.gateway.envoy.questions import ROUTE, header_map, http_request, question

MAX = 10
BODY = b'{"text":"x"}'
LENGTH = (("content-length", str(len(BODY))),)


def read(raw: bytes) -> CheckRequest:
    return read_check(raw, headers_max_count=MAX)


def test_read_check_gives_the_request_when_it_is_whole() -> None:
    asked = read(question(http_request("PUT", "/notes/a1?x=1", (("X-Trace", "é!"), *LENGTH), body=BODY)))
    assert asked == CheckRequest("PUT", "/notes/a1?x=1", "desk.example", (("x-trace", "é!"), *LENGTH), BODY, ROUTE)


def test_read_check_keeps_repeated_headers_apart_when_envoy_sends_them_raw() -> None:
    pairs = (("accept", "a"), ("accept", "b"))
    assert read(question(http_request(headers=pairs))).headers == pairs


def test_read_check_drops_envoys_own_header_when_the_body_is_whole() -> None:
    asked = read(question(http_request("PUT", headers=(*LENGTH, ("x-envoy-auth-partial-body", "false")), body=BODY)))
    assert asked.headers == LENGTH


def test_read_check_takes_a_chunked_body_when_it_came() -> None:
    assert read(question(http_request("PUT", headers=(("transfer-encoding", "chunked"),), body=BODY))).body == BODY


NO_MAP = text_field(2, "GET") + text_field(4, "/") + octets_field(3, text_field(1, "accept") + text_field(2, "a,b"))
REFUSED = {
    "the bytes are no message": (b"\xff\xff\xff", "malformed_request"),
    "nothing is asked": (b"", "malformed_request"),
    "headers came joined": (question(NO_MAP), "malformed_request"),
    "two header maps": (question(http_request(extra=header_map(()))), "malformed_request"),
    "two requests": (question(http_request())[:0] + octets_field(1, octets_field(4, b"") * 2), "malformed_request"),
    "two methods": (question(http_request(extra=text_field(2, "PUT"))), "malformed_request"),
    "a path that is no UTF-8": (question(http_request(extra=octets_field(4, b"\xff"))), "malformed_request"),
    "the body came as text": (question(http_request("PUT", extra=text_field(11, "x"))), "malformed_request"),
    "both forms of the body": (
        question(http_request("PUT", headers=LENGTH, body=BODY, extra=text_field(11, "x"))),
        "malformed_request",
    ),
    "a body was announced and did not come": (question(http_request("PUT", headers=LENGTH)), "malformed_request"),
    "the body is shorter than announced": (
        question(http_request("PUT", headers=LENGTH, body=BODY[:-1])),
        "malformed_request",
    ),
    "the body is longer than announced": (
        question(http_request("PUT", headers=LENGTH, body=BODY + b" ")),
        "malformed_request",
    ),
    "a length is spelt oddly": (
        question(http_request("PUT", headers=(("content-length", "+12"),), body=BODY)),
        "malformed_request",
    ),
    "a chunked body did not come": (
        question(http_request("PUT", headers=(("transfer-encoding", "chunked"),))),
        "malformed_request",
    ),
    "only the beginning of the body came": (
        question(http_request("PUT", headers=(("x-envoy-auth-partial-body", "true"), *LENGTH), body=BODY[:3])),
        "body_too_large",
    ),
    "the caller says its body is cut": (
        question(http_request(headers=(("X-Envoy-Auth-Partial-Body", "1"),))),
        "body_too_large",
    ),
    "a context extension stands twice": (
        octets_field(1, octets_field(10, text_field(1, "a") + text_field(2, "b")) * 2),
        "malformed_request",
    ),
    "one header too many": (question(http_request(headers=(("a", "b"),) * (MAX - 2))), "headers_too_large"),
}


@pytest.mark.parametrize(("raw", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_read_check_refuses_when(raw: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(raw)
    assert refused.value.code == code


def test_read_check_takes_as_many_headers_as_allowed() -> None:
    assert len(read(question(http_request(headers=(("a", "b"),) * (MAX - 3)))).headers) == MAX - 3


@given(st.binary(max_size=300))
def test_read_check_refuses_or_reads_when_bytes_are_arbitrary(raw: bytes) -> None:
    try:
        read(raw)
    except Refusal as refused:
        assert refused.code in {"malformed_request", "body_too_large", "headers_too_large"}
