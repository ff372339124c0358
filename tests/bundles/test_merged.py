"""Data bundles beside a full one: what they add, and everything they may not touch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bundles.canonical import canonical_json
from bundles.errors import BundleRefused
from bundles.merged import DataBundle, merge_bundles
from bundles.trusted_set import TrustedBundle
from tests.bundles.parts import MANIFEST, NOW, good_bundle, good_files, signed, verified

FULL = verified(good_bundle())


def data_bundle(
    files: dict[str, bytes] | None = None, *, roots: list[str] | None = None, name: str = "oncall", **options: Any
) -> TrustedBundle:
    """A signed bundle of data, verified."""
    manifest = canonical_json({"revision": "d1", "roots": roots or ["oncall"]})
    content = files if files is not None else {"oncall/data.json": b'{"now":"anna"}'}
    return verified(signed({".manifest": manifest, **content}, name=name, **options), name=name)


def merged(part: TrustedBundle, *allowed: str, full: TrustedBundle = FULL) -> TrustedBundle:
    return merge_bundles(full, {part.name: DataBundle(part, frozenset(allowed or ("oncall",)))})


def test_full_bundle_stays_as_it_is_when_nothing_is_added() -> None:
    assert merge_bundles(FULL, {}) is FULL


def test_data_is_added_when_its_root_is_free_and_allowed() -> None:
    result = merged(data_bundle())
    assert result.data == {**FULL.data, "oncall": {"now": "anna"}}
    assert (result.rego, result.wasm, result.sequence, result.probes) == (FULL.rego, FULL.wasm, 7, ())


def test_digest_is_another_when_the_data_is_another() -> None:
    one, two = data_bundle(), data_bundle({"oncall/data.json": b'{"now":"bert"}'})
    digests = {FULL.digest, merged(one).digest, merged(two).digest}
    assert len(digests) == 3 and merged(one).digest == merged(one).digest


def test_result_expires_with_the_first_of_its_bundles() -> None:
    assert merged(data_bundle(expires_at=NOW + 5)).expires_at == NOW + 5


CLAIMS_ALL = verified(signed({**good_files(), ".manifest": MANIFEST.replace(b'"chains",', b'"chains","oncall",')}))

BAD = {
    "carries a rule": (
        lambda: merged(data_bundle({"oncall/x.rego": b"package oncall\n\ndeny := true\n"}, roots=["oncall"]), "oncall"),
        "bundle_not_data_only",
    ),
    "carries a module": (lambda: merged(data_bundle({"policy.wasm": b"\0asm"})), "bundle_not_data_only"),
    "carries a probe": (
        lambda: merged(data_bundle({"probes/a.json": b'{"input":{},"decision":{}}'})),
        "bundle_not_data_only",
    ),
    "is a full bundle": (lambda: merged(FULL), "bundle_not_data_only"),
    "gives a root that it was not given": (
        lambda: merged(data_bundle({"rota/data.json": b"{}"}, roots=["rota"])),
        "bundle_root_not_allowed",
    ),
    "claims more roots than it fills": (
        lambda: merged(data_bundle(roots=["oncall", "rota"])),
        "bundle_root_not_allowed",
    ),
    "claims every root": (
        lambda: merged(data_bundle({"oncall/data.json": b"{}"}, roots=[""])),
        "bundle_root_not_allowed",
    ),
    "brings approval chains": (
        lambda: merged(data_bundle({"chains/data.json": b"{}"}, roots=["chains"]), "chains"),
        "bundle_root_not_allowed",
    ),
    "brings a connector": (
        lambda: merged(data_bundle({"connectors/x/data.json": b"{}"}, roots=["connectors"]), "connectors"),
        "bundle_root_not_allowed",
    ),
    "stands at a root of the full bundle": (
        lambda: merged(data_bundle(), full=CLAIMS_ALL),
        "bundle_data_overlap",
    ),
    "stands where another data bundle stands": (
        lambda: merge_bundles(
            FULL,
            {
                "a": DataBundle(data_bundle(), frozenset({"oncall"})),
                "b": DataBundle(data_bundle(name="b"), frozenset({"oncall"})),
            },
        ),
        "bundle_data_overlap",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_data_bundle_is_refused_when_it(fault: str) -> None:
    make, code = BAD[fault]
    with pytest.raises(BundleRefused) as refused:
        make()
    assert refused.value.code == code


@pytest.mark.parametrize("root", ["policies", "tidegate"])
def test_data_bundle_is_refused_when_it_stands_where_only_rules_stand(root: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        data_bundle({f"{root}/data.json": b'{"x":{"allow":["reader"]}}'}, roots=[root])
    assert refused.value.code == "bundle_data_conflict"


def test_texts_are_added_beside_data_when_a_large_bundle_gives_them() -> None:
    full = replace(FULL, texts={"owners": b'{"a":1}'})
    result = merged(replace(data_bundle(), data={}, texts={"oncall": b'{"now":"anna"}'}), full=full)
    assert result.data == FULL.data
    assert result.texts == {"owners": b'{"a":1}', "oncall": b'{"now":"anna"}'}


TEXTS_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "it is not allowed": ({}, {"data": {}, "texts": {"others": b"1"}}, "bundle_root_not_allowed"),
    "the full bundle has data there": (
        {"data": {"oncall": 1}},
        {"data": {}, "texts": {"oncall": b"1"}},
        "bundle_data_overlap",
    ),
    "the full bundle has text there": (
        {"texts": {"oncall": b"1"}},
        {"data": {}, "texts": {"oncall": b"1"}},
        "bundle_data_overlap",
    ),
    "its data meets the full bundle's text": ({"texts": {"oncall": b"1"}}, {}, "bundle_data_overlap"),
}


@pytest.mark.parametrize(("full", "part", "code"), TEXTS_REFUSED.values(), ids=TEXTS_REFUSED.keys())
def test_text_is_refused_when(full: dict[str, Any], part: dict[str, Any], code: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        merged(replace(data_bundle(), **part), full=replace(FULL, **full))
    assert refused.value.code == code
