"""Connector manifests: what loads, and what does not build."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from bundles.errors import BundleRefused
from bundles.manifest import load_manifest, load_manifests

ACTION: dict[str, Any] = {
    "name": "order.update",
    "match": {"method": "PATCH", "path": "/orders/{id}"},
    "mode": "write",
    "resource": {"type": "order", "id": "{id}"},
    "arguments": {"schema": {"type": "object", "properties": {"note": {"type": "string"}}}, "body": "json"},
}
MANIFEST: dict[str, Any] = {
    "connector": "shop",
    "version": "1.2.0",
    "base_path": "/api",
    "caller_token": ["bearer"],
    "credential_places": ["bearer", "header:x-key", "query:token"],
    "auth": {"kind": "bearer"},
    "actions": [ACTION],
}


def _manifest(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MANIFEST), **changes}


def _action(**changes: Any) -> dict[str, Any]:
    return _manifest(actions=[{**copy.deepcopy(ACTION), **changes}])


def _two(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two reads that differ in nothing but what is given."""
    common = {"mode": "read"}
    return _manifest(actions=[{**common, "name": "a.read", **first}, {**common, "name": "b.read", **second}])


def _get(path: str, **more: Any) -> dict[str, Any]:
    return {"match": {"method": "GET", "path": path, **more}}


def _post(path: str) -> dict[str, Any]:
    return {"match": {"method": "POST", "path": path}, "mode": "write"}


def _arguments(**changes: Any) -> dict[str, Any]:
    return _action(arguments={**ACTION["arguments"], **changes})


def _schema(**changes: Any) -> dict[str, Any]:
    return _arguments(schema={**ACTION["arguments"]["schema"], **changes})


REFUSED: dict[str, Callable[[], Any]] = {
    "it is a list": list,
    "it has a key nobody knows": lambda: _manifest(retries=3),
    "it lacks its credential places": lambda: {k: v for k, v in MANIFEST.items() if k != "credential_places"},
    "it has no actions": lambda: _manifest(actions=[]),
    "its actions are no list": lambda: _manifest(actions={}),
    "an action is a text": lambda: _manifest(actions=["order.update"]),
    "its version is no version": lambda: _manifest(version="1"),
    "a token place is unknown": lambda: _manifest(caller_token=["cookie"]),
    "a token place is a user name": lambda: _manifest(credential_places=["bearer", "basic_user"]),
    "a token is taken from a cookie": lambda: _manifest(caller_token=["bearer", "cookie:sid"]),
    "an action takes its token from a cookie": lambda: _action(caller_token=["cookie:sid"]),
    "a token stands in a form that nobody reads": lambda: {
        **_two(_get("/a"), _post("/b")), "caller_token": ["bearer", "form:token"]
    },
    "an action takes its token in a form that nobody reads": lambda: _two(
        _get("/a"), {**_post("/b"), "caller_token": ["form:token"]}
    ),
    "auth is unknown": lambda: _manifest(auth={"kind": "magic"}),
    "auth by header names no header": lambda: _manifest(auth={"kind": "header"}),
    "retries name statuses of their own": lambda: _manifest(retry={"max_attempts": 3, "statuses": [500]}),
    "retries are too many": lambda: _manifest(retry={"max_attempts": 11}),
    "a text stands for a number": lambda: _manifest(hold_budget_seconds="10"),
    "a request header has capitals": lambda: _manifest(request_headers=["X-Key"]),
    "a method is unknown": lambda: _action(match={"method": "TRACE", "path": "/a"}),
    "a path is relative": lambda: _action(match={"method": "GET", "path": "a"}),
    "a path climbs": lambda: _action(match={"method": "GET", "path": "/a/../b"}),
    "a path has an empty segment": lambda: _action(match={"method": "GET", "path": "/a//{id}"}),
    "a path has a query": lambda: _action(match={"method": "GET", "path": "/a?b"}),
    "a path is encoded": lambda: _action(match={"method": "GET", "path": "/a%2fb"}),
    "a parameter is part of a segment": lambda: _action(match={"method": "GET", "path": "/a/x{id}"}),
    "a parameter stands twice": lambda: _action(match={"method": "GET", "path": "/{id}/{id}"}),
    "a rest parameter is not at the end": lambda: _action(match={"method": "GET", "path": "/{id+}/b"}),
    "mode is neither read nor write": lambda: _action(mode="admin"),
    "a pattern names no parameter": lambda: _arguments(parameters={"other": "[0-9]+"}),
    "a pattern is none": lambda: _arguments(parameters={"id": "["}),
    "a pattern matches nothing at all": lambda: _arguments(parameters={"id": ".*"}),
    "a pattern looks around": lambda: _arguments(parameters={"id": "(?!admin).+"}),
    "a pattern refers back": lambda: _arguments(parameters={"id": r"(a+)\1"}),
    "a body discriminator has no body": lambda: _action(
        match={"method": "PATCH", "path": "/orders/{id}", "body": {"/a": "b"}}, arguments={}, resource=None
    ),
    "a schema is open without saying so": lambda: _schema(additionalProperties=True),
    "a schema's properties are no object": lambda: _schema(properties=None),
    "a schema requires no list": lambda: _schema(required="note"),
    "a schema is no object": lambda: _schema(type="array"),
    "a schema refers elsewhere": lambda: _schema(properties={"a": {"anyOf": [{"$ref": "https://x/y"}]}}),
    "a schema refers to a file": lambda: _schema(**{"$ref": "file:///etc/passwd"}),
    "a high-risk action is open": lambda: {
        **_arguments(additional=True), "actions": [{**_arguments(additional=True)["actions"][0], "risk": "high"}]
    },
    "a resource names no argument": lambda: _action(resource={"type": "order", "id": "{other}"}),
    "two actions have one name": lambda: _two({**_get("/a"), "name": "b.read"}, _get("/b")),
    "two actions have one request": lambda: _two(_get("/a/{x}"), _get("/a/{y}")),
    "a literal is also a parameter": lambda: _two(_get("/a/{x}"), _get("/a/special")),
    "a parameter is also a literal": lambda: _two(_get("/a/special"), _get("/a/{x}")),
    "a rest covers a path": lambda: _two(_get("/a/{x+}"), _get("/a/b/c")),
    "only their upload hosts differ": lambda: _two(_get("/a"), {**_get("/a"), "upload_host": "files"}),
    "a discriminator is missing on one side": lambda: _two(_get("/a", query={"q": "1"}), _get("/a")),
    "discriminators look at different places": lambda: _two(
        _get("/a", query={"q": "1"}), _get("/a", query={"r": "1"})
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_manifest_is_refused_when(make: Callable[[], Any]) -> None:
    with pytest.raises(BundleRefused) as refused:
        load_manifest(make())
    assert refused.value.code == "manifest_invalid"


@pytest.mark.parametrize("key", ["read_back", "cost"])
@pytest.mark.parametrize("value", [{}, None, {"method": "GET", "path": "/orders/{id}"}], ids=["empty", "null", "full"])
def test_manifest_is_refused_as_not_supported_when_it_has_a_key_of_a_later_version(key: str, value: Any) -> None:
    with pytest.raises(BundleRefused, match=f"{key} of an action is not supported by this version") as refused:
        load_manifest(_action(**{key: value}))
    assert refused.value.code == "manifest_invalid"


APART: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "their literals differ": (_get("/a/{x}"), _get("/b/{x}")),
    "their lengths differ": (_get("/a/{x}"), _get("/a/{x}/c")),
    "their query differs": (_get("/a", query={"q": "1"}), _get("/a", query={"q": "2"})),
    "their methods differ": (_get("/a"), {"match": {"method": "HEAD", "path": "/a"}}),
    "a pattern keeps the literal out": (
        {**_get("/a/{n}"), "arguments": {"parameters": {"n": "[0-9]+"}}},
        _get("/a/special"),
    ),
    "the other's pattern keeps the literal out": (
        _get("/a/special"),
        {**_get("/a/{n}"), "arguments": {"parameters": {"n": "[0-9]+"}}},
    ),
}


@pytest.mark.parametrize(("first", "second"), APART.values(), ids=APART.keys())
def test_actions_stand_side_by_side_when(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert len(load_manifest(_two(first, second)).actions) == 2


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({**_post("/b"), "arguments": {"body": "form"}}, id="every form is read"),
        pytest.param({**_post("/b"), "caller_token": ["ticket"]}, id="the action that reads none takes another"),
        pytest.param(_get("/b"), id="the action without a body has none"),
    ],
)
def test_token_may_stand_in_a_form_when(second: dict[str, Any]) -> None:
    document = {**_two(_get("/a"), second), "caller_token": ["bearer", "form:token"]}
    assert load_manifest(document).caller_token == ("bearer", "form:token")


def test_credential_may_stand_in_a_cookie_when_it_is_the_services_own() -> None:
    assert load_manifest(_manifest(credential_places=["bearer", "cookie:sid"])).credential_places[1] == "cookie:sid"


def test_manifest_is_loaded_with_full_names_and_defaults() -> None:
    manifest = load_manifest(MANIFEST)
    action = manifest.action("shop.order.update")
    assert action is not None and manifest.action("shop.other") is None
    assert (action.risk, action.reversible, action.idempotent, action.dedupe_seconds) == ("medium", False, False, 0)
    assert (manifest.retry.max_attempts, manifest.rewrite.headers) == (1, ("Location", "Link"))
    assert load_manifest(_action(name="shop.order.update")).actions == manifest.actions


def test_open_schema_is_loaded_when_the_action_says_so() -> None:
    document = _arguments(additional=True, schema={"type": "object", "additionalProperties": True})
    assert load_manifest(document).actions[0].arguments.additional


def test_manifests_are_loaded_by_name() -> None:
    assert list(load_manifests({"connectors": {"shop": MANIFEST}})) == ["shop"]
    assert load_manifests({}) == {}


@pytest.mark.parametrize("data", [{"connectors": []}, {"connectors": {"other": MANIFEST}}])
def test_manifests_are_refused_when_misplaced(data: Any) -> None:
    with pytest.raises(BundleRefused):
        load_manifests(data)
