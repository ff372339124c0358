"""Headers on both ways, and the caller's token taken out."""

from __future__ import annotations

import pytest

from gateway.connectors.outbound import (
    HOP_BY_HOP,
    NEVER_FORWARDED,
    check_coding,
    forward_headers,
    header_of_place,
    header_policy,
    inject,
    kept_response_headers,
    strip_form,
    strip_query,
    without_token,
)
from gateway.edge.tokens import FoundToken
from tests.gateway.connectors.parts import action, manifest, refused

POLICY = header_policy(
    manifest(
        action("a.x", "GET", "/a"),
        caller_token=["bearer", "x-api-key"],
        credential_places=["bearer", "x-api-key", "header:x-user-token", "query:key"],
        auth={"kind": "header", "header": "x-service-key"},
        request_headers=["x-version", "user-agent", "x-user-token", "x-service-key", "authorization", "x-api-key",
                         "host", "connection", "tidegate-run", "cookie", "idempotency-key"],
        response_headers_drop=["x-internal"],
    )
)  # fmt: skip
PLAIN = header_policy(manifest(action("a.x", "GET", "/a")))


@pytest.mark.parametrize("name", ["x-version", "user-agent", "accept", "content-type", "cookie", "idempotency-key"])
def test_header_goes_out_when_the_manifest_names_it(name: str) -> None:
    assert (name, "v") in forward_headers(((name, "v"),), POLICY)


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NEVER_FORWARDED - {"cookie", "idempotency-key", "accept-encoding"}),
        *("x-api-key", "x-user-token", "x-service-key", "tidegate-run", "tidegate-ticket", "x-unknown"),
    ],
)
def test_header_stays_behind_whatever_the_manifest_says(name: str) -> None:
    assert name not in dict(forward_headers(((name, "v"),), POLICY))


@pytest.mark.parametrize("name", ["cookie", "idempotency-key", "user-agent", "x-version"])
def test_header_stays_behind_when_the_manifest_does_not_name_it(name: str) -> None:
    assert name not in dict(forward_headers(((name, "v"),), PLAIN))


def test_upstream_is_asked_for_uncompressed_answers() -> None:
    assert forward_headers((("accept-encoding", "gzip"),), PLAIN) == (("accept-encoding", "identity"),)


def test_header_nominated_by_connection_is_dropped_before_anything_is_injected() -> None:
    headers = (("connection", "close, X-Version, x-service-key"), ("x-version", "1"), ("accept", "*/*"))
    forwarded = forward_headers(headers, POLICY)
    assert forwarded == (("accept", "*/*"), ("accept-encoding", "identity"))
    assert inject(forwarded, (("x-service-key", "s"),))[-1] == ("x-service-key", "s")


def test_injected_credential_replaces_every_header_of_its_name() -> None:
    headers = (("authorization", "Bearer caller"), ("accept", "*/*"), ("authorization", "Basic x"))
    assert inject(headers, (("authorization", "Bearer own"),)) == (("accept", "*/*"), ("authorization", "Bearer own"))


def test_nothing_is_injected_when_the_service_takes_no_credential() -> None:
    headers = (("accept", "*/*"),)
    assert inject(headers, ()) is headers


@pytest.mark.parametrize(
    ("place", "header"),
    [
        ("bearer", "authorization"),
        ("token", "authorization"),
        ("basic_password", "authorization"),
        ("x-api-key", "x-api-key"),
        ("api-key", "api-key"),
        ("header:X-Key", "x-key"),
        ("query:key", None),
        ("form:token", None),
        ("ticket", None),
    ],
)
def test_place_of_a_credential_is_known_by_its_header(place: str, header: str | None) -> None:
    assert header_of_place(place) == header


QUERY = (("a", "1"), ("key", "s"), ("b", "x y"), ("tidegate_ticket", "t"))
RAW_QUERY = "a=1&%6Bey=s&b=x+y&tidegate_ticket=t"


@pytest.mark.parametrize(
    ("found", "raw", "names"),
    [
        pytest.param(None, RAW_QUERY, "a key b tidegate_ticket", id="no token"),
        pytest.param(FoundToken("s", "bearer"), RAW_QUERY, "a key b tidegate_ticket", id="token in a header"),
        pytest.param(FoundToken("s", "query:key"), "a=1&b=x+y&tidegate_ticket=t", "a b tidegate_ticket", id="token in the query"),
        pytest.param(FoundToken("t", "ticket"), "a=1&%6Bey=s&b=x+y", "a key b", id="ticket"),
        pytest.param(FoundToken("t", "form:key"), RAW_QUERY, "a key b tidegate_ticket", id="token in a form"),
    ],
)  # fmt: skip
def test_query_loses_the_token_and_nothing_else(found: FoundToken | None, raw: str, names: str) -> None:
    assert strip_query(RAW_QUERY, QUERY, found) == raw
    assert [name for name, _ in without_token(QUERY, found)] == names.split()


def test_empty_query_stays_empty() -> None:
    assert strip_query("", (), FoundToken("s", "query:key")) == ""


@pytest.mark.parametrize(
    ("found", "raw"),
    [
        pytest.param(FoundToken("s", "form:token"), b"a=1&b=%20", id="token in the form"),
        pytest.param(FoundToken("s", "bearer"), b"a=1&t%6Fken=s&b=%20", id="token elsewhere"),
        pytest.param(None, b"a=1&t%6Fken=s&b=%20", id="no token"),
    ],
)
def test_form_loses_the_token_and_nothing_else(found: FoundToken | None, raw: bytes) -> None:
    assert strip_form(b"a=1&t%6Fken=s&b=%20", found) == raw


def test_empty_form_stays_empty() -> None:
    assert strip_form(b"", FoundToken("s", "form:token")) == b""


@pytest.mark.parametrize(
    "name",
    [*sorted(HOP_BY_HOP), "Set-Cookie", "set-cookie2", "Content-Length", "WWW-Authenticate", "Tidegate-Effect",
     "X-Internal", "x-nominated", "Clear-Site-Data", "Content-Security-Policy", "Refresh", "Alt-Svc"],
)  # fmt: skip
def test_answer_loses_headers_that_are_not_the_upstreams_to_send(name: str) -> None:
    returned = kept_response_headers([(name.lower(), "v"), ("connection", "x-nominated")], POLICY)
    assert returned == (("content-security-policy", "sandbox"), ("x-content-type-options", "nosniff"))


def test_answer_keeps_what_clients_need() -> None:
    kept = (("Content-Type", "application/json"), ("ETag", "1"), ("Link", "<x>"), ("X-RateLimit-Remaining", "4"))
    returned = kept_response_headers([(name.lower(), value) for name, value in kept], POLICY)
    assert returned[:4] == tuple((name.lower(), value) for name, value in kept)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip", "zstd"])
def test_answer_is_refused_when_it_is_compressed(coding: str) -> None:
    assert refused(lambda: check_coding(coding)).code == "upstream_failed"


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_answer_is_accepted_when_it_is_plain(coding: str) -> None:
    check_coding(coding)
