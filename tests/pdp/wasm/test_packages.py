"""Packages are read as Rego reads them, and data keeps out of their way."""

from __future__ import annotations

from typing import Any

import pytest

from bundles.canonical import JsonValue
from pdp.errors import PolicyRefused
from pdp.wasm.packages import PACKAGE_DEPTH_MAX, check_apart, check_texts_apart, package_paths
from tests.pdp.parts import bundle_of


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        pytest.param(b"package a", ("a",), id="nothing else"),
        pytest.param(b"package policies.servicenow\n\nallow := 1", ("policies", "servicenow"), id="a usual one"),
        pytest.param(
            b"# package wrong\n\n  package a.b # the right one\n", ("a", "b"), id="a comment before and after"
        ),
        pytest.param(b'package a["b-c"].d\n', ("a", "b-c", "d"), id="a quoted step"),
        pytest.param(b'package a["\\u0062"]\n', ("a", "b"), id="an escaped step"),
        pytest.param(b'package a["x\\"y"]\n', ("a", 'x"y'), id="an escaped quotation mark"),
        pytest.param(b"\xef\xbb\xbfpackage a\n", ("a",), id="a byte order mark"),
        pytest.param(b"package\n  a.b\n", ("a", "b"), id="a new line between"),
        pytest.param(b"package a.b;x := 1", ("a", "b"), id="a semicolon after"),
    ],
)
def test_package_paths_finds_the_package_when_the_statement_is_plain(raw: bytes, path: tuple[str, ...]) -> None:
    assert package_paths({"a.rego": raw}) == {path}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"# package a", id="only a comment"),
        pytest.param(b"import data.x\npackage a", id="something before"),
        pytest.param(b"packagea", id="no space"),
        pytest.param(b"package 1a", id="a digit first"),
        pytest.param(b"package a.b-c", id="a dash"),
        pytest.param(b"package a[b]", id="a variable step"),
        pytest.param(b'package a["b"', id="an open bracket"),
        pytest.param(b'package a["\\x"]', id="an unknown escape"),
        pytest.param(b"package a.", id="a dot at the end"),
        pytest.param(b"package a\xff", id="not UTF-8"),
        pytest.param(b"package a" + b".b" * PACKAGE_DEPTH_MAX, id="one step too deep"),
        pytest.param(b" " * 200_000 + b"x", id="much blank space"),
        pytest.param(b"#\n" * 100_000 + b"x", id="many comments"),
    ],
)
def test_package_paths_refuses_when_the_statement_is_not_plain(raw: bytes) -> None:
    with pytest.raises(PolicyRefused) as refused:
        package_paths({"a.rego": raw})
    assert refused.value.code == "policy_package_unreadable"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="no data"),
        pytest.param({"connectors": {"a": 1}}, id="elsewhere"),
        pytest.param({"policies": {}}, id="the way to the package, empty"),
        pytest.param({"policies": {"b": {"allow": [1]}}}, id="a neighbour"),
        pytest.param({"policies": {"servicenow2": 1}}, id="a longer name"),
    ],
)
def test_check_apart_accepts_when_data_lies_elsewhere(data: Any) -> None:
    check_apart(data, [("policies", "servicenow"), ("tidegate",)])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"policies": {"servicenow": {}}}, id="an empty object at the package"),
        pytest.param({"policies": {"servicenow": {"deny": []}}}, id="a rule's place"),
        pytest.param({"policies": {"servicenow": None}}, id="null at the package"),
        pytest.param({"policies": []}, id="a list in the way"),
        pytest.param({"policies": None}, id="null in the way"),
        pytest.param({"tidegate": {"decision": {"effect": "ALLOW"}}}, id="the decision itself"),
    ],
)
def test_check_apart_refuses_when_data_lies_at_a_package(data: Any) -> None:
    with pytest.raises(PolicyRefused) as refused:
        check_apart(data, [("policies", "servicenow"), ("tidegate",)])
    assert refused.value.code == "policy_data_overlap"


@pytest.mark.parametrize(
    ("data", "packages"),
    [
        pytest.param({"owners": {}}, [], id="data has the name too"),
        pytest.param({}, [("owners", "rules")], id="a package begins there"),
        pytest.param({}, [("other",), ("owners",)], id="a package is there"),
    ],
)
def test_check_texts_apart_refuses_when(data: dict[str, JsonValue], packages: list[tuple[str, ...]]) -> None:
    with pytest.raises(PolicyRefused) as refused:
        check_texts_apart(bundle_of(None, data=data, texts={"free": b"1", "owners": b"{}"}), packages)
    assert refused.value.code == "policy_data_overlap"


def test_check_texts_apart_accepts_when_nothing_else_has_the_name() -> None:
    check_texts_apart(bundle_of(None, texts={"owners": b"{}"}), [("policies", "owners")])
