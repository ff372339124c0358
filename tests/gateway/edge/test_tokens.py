"""Where the caller's token stands."""

from __future__ import annotations

import base64

import pytest

from gateway.edge.tokens import FoundToken, find_token, needs_form
from gateway.errors import GateMisuse, Refusal

Pairs = list[tuple[str, str]]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("places", "headers", "query", "form", "place"),
    [
        pytest.param(["bearer"], [("authorization", "Bearer T")], [], None, "bearer", id="bearer"),
        pytest.param(["bearer"], [("authorization", "bearer   T ")], [], None, "bearer", id="bearer in any case"),
        pytest.param(["token"], [("authorization", "token T")], [], None, "token", id="token of PyGithub"),
        pytest.param(
            ["basic_password"], [("authorization", basic("u", "T"))], [], None, "basic_password", id="basic password"
        ),
        pytest.param(["x-api-key"], [("x-api-key", "T")], [], None, "x-api-key", id="key of Anthropic"),
        pytest.param(["api-key"], [("api-key", "T")], [], None, "api-key", id="key of Azure"),
        pytest.param(["header:x-own"], [("x-own", "T")], [], None, "header:x-own", id="any header"),
        pytest.param(["query:key"], [], [("key", "T")], None, "query:key", id="a query parameter"),
        pytest.param(["form:token"], [], [], [("token", "T")], "form:token", id="a form field"),
        pytest.param(["ticket"], [], [("tidegate_ticket", "T")], None, "ticket", id="an upload ticket"),
        pytest.param(["header:authorization"], [("authorization", "T")], [], None, "header:authorization", id="raw"),
        pytest.param(
            ["bearer", "form:token"],
            [("authorization", "Bearer T")],
            [],
            [("token", "T")],
            "form:token",
            id="the same token twice, to be cut out of the form",
        ),
        pytest.param(
            ["query:key", "x-api-key"],
            [("x-api-key", "T")],
            [("key", "T"), ("key", "T")],
            None,
            "query:key",
            id="the same token thrice, to be cut out of the query",
        ),
        pytest.param(
            ["bearer", "x-api-key"],
            [("authorization", "Bearer T"), ("x-api-key", "T")],
            [],
            None,
            "bearer",
            id="the same token twice in headers",
        ),
    ],
)
def test_find_token_finds_when_it_stands_where_the_manifest_says(
    places: list[str], headers: Pairs, query: Pairs, form: Pairs | None, place: str
) -> None:
    assert find_token(headers, query, form, places) == FoundToken("T", place)


def test_find_token_keeps_colons_when_the_password_has_some() -> None:
    found = find_token([("authorization", basic("u", "a:b"))], [], None, ["basic_password"])
    assert found.token == "a:b"


@pytest.mark.parametrize(
    ("places", "credential_places", "headers", "query", "form", "code"),
    [
        pytest.param(["bearer"], [], [], [], None, "identity_missing", id="no token"),
        pytest.param(["bearer"], [], [("authorization", "Bearer")], [], None, "identity_missing", id="empty token"),
        pytest.param(["bearer"], [], [("x-api-key", "T")], [], None, "identity_missing", id="somewhere harmless"),
        pytest.param(["bearer"], [], [("authorization", "token T")], [], None, "malformed_request", id="wrong scheme"),
        pytest.param(["x-api-key"], [], [("authorization", "Bearer T")], [], None, "malformed_request", id="no scheme"),
        pytest.param(["bearer"], [], [("authorization", "Negotiate T")], [], None, "malformed_request", id="unknown"),
        pytest.param(
            ["basic_password"], [], [("authorization", "Basic !!")], [], None, "identity_invalid", id="no base64"
        ),
        pytest.param(
            ["basic_password"],
            [],
            [("authorization", "Basic " + base64.b64encode(b"abc").decode())],
            [],
            None,
            "identity_invalid",
            id="no password",
        ),
        pytest.param(
            ["basic_password"],
            [],
            [("authorization", "Basic " + base64.b64encode(b"u:\xff").decode())],
            [],
            None,
            "identity_invalid",
            id="no UTF-8",
        ),
        pytest.param(
            ["bearer", "x-api-key"],
            [],
            [("authorization", "Bearer A"), ("x-api-key", "B")],
            [],
            None,
            "malformed_request",
            id="two different tokens",
        ),
        pytest.param(
            ["bearer"],
            ["bearer", "header:x-api-key"],
            [("authorization", "Bearer T"), ("x-api-key", "smuggled")],
            [],
            None,
            "malformed_request",
            id="a second credential in a header",
        ),
        pytest.param(
            ["bearer"],
            ["query:token"],
            [("authorization", "Bearer T")],
            [("token", "smuggled")],
            None,
            "malformed_request",
            id="a second credential in the query",
        ),
        pytest.param(
            ["bearer"],
            ["form:token"],
            [("authorization", "Bearer T")],
            [],
            [("token", "smuggled")],
            "malformed_request",
            id="a second credential in the form",
        ),
        pytest.param(
            ["bearer"],
            [],
            [("authorization", "Bearer T")],
            [("tidegate_ticket", "x")],
            None,
            "malformed_request",
            id="a ticket where none is taken",
        ),
        pytest.param(
            ["query:key", "form:key"],
            [],
            [],
            [("key", "T")],
            [("key", "T")],
            "malformed_request",
            id="the same token in the query and in the form",
        ),
        *(
            pytest.param(
                ["bearer"],
                ["bearer", "cookie:sid"],
                [("authorization", "Bearer T"), ("cookie", "a=b"), ("cookie", cookie)],
                [],
                None,
                "malformed_request",
                id=f"a second credential in a cookie: {cookie}",
            )
            for cookie in ("sid=x", "a=b; sid=x", "a=b;sid=x;c", "SID=x", "sid =x", "sid", "a=b, sid=x", '"sid"=x')
        ),
        pytest.param(
            ["ticket"],
            [],
            [],
            [("tidegate_ticket", "a"), ("tidegate_ticket", "b")],
            None,
            "malformed_request",
            id="two tickets",
        ),
    ],
)
def test_find_token_refuses_when(
    places: list[str], credential_places: list[str], headers: Pairs, query: Pairs, form: Pairs | None, code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        find_token(headers, query, form, places, credential_places)
    assert caught.value.code == code


def test_find_token_finds_when_a_cookie_is_none_of_the_services_credentials() -> None:
    headers = [("authorization", "Bearer T"), ("cookie", "sidecar=1; a=sid; xsid=2")]
    assert find_token(headers, [], None, ["bearer"], ["bearer", "cookie:sid"]) == FoundToken("T", "bearer")


def test_find_token_is_misuse_when_a_manifest_names_an_unknown_place() -> None:
    with pytest.raises(GateMisuse):
        find_token([], [], None, ["nowhere"])


@pytest.mark.parametrize(
    ("places", "credential_places", "expected"),
    [
        pytest.param(["bearer"], [], False, id="headers only"),
        pytest.param(["form:token"], [], True, id="the token may stand in the form"),
        pytest.param(["bearer"], ["form:token"], True, id="a credential may stand in the form"),
    ],
)
def test_needs_form_says_when_the_body_must_be_read(
    places: list[str], credential_places: list[str], expected: bool
) -> None:
    assert needs_form(places, credential_places) is expected
