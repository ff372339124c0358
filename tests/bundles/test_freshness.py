"""Freshness statements: one good one, and everything that must not count as one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bundles.canonical import canonical_json
from bundles.errors import BundleMisuse, BundleRefused
from bundles.freshness import (
    CLOCK_LEEWAY_SECONDS,
    STATEMENT_MAX_BYTES,
    TTL_MAX_SECONDS,
    BundleIdentity,
    FreshnessStatement,
    read_statement,
    sign_statement,
    verify_statement,
)
from bundles.jws import sign_jws
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey
from tests.bundles.parts import NOW, good_bundle, signing_key, token_of, tokenised

OURS = BundleIdentity("main", "sha256:" + "a" * 64, 7)
KEY = TrustedKey("freshness", "ES256", "freshness", public_pem(signing_key("freshness")))
NEXT_KEY = TrustedKey("freshness-2", "ES256", "freshness", public_pem(signing_key("freshness-2")))


def stated(bundle: BundleIdentity = OURS, *, now: int = NOW, ttl: int = 600, key: str = "freshness") -> str:
    """A statement by one of the test's keys under its own name."""
    return sign_statement(bundle, key=signing_key(key), keyid=key, now=now, ttl_seconds=ttl)


def payload(**changes: Any) -> str:
    """A properly signed token whose payload is altered; ``None`` removes a member."""
    members: dict[str, Any] = {"name": "main", "digest": OURS.digest, "seq": 7, "iat": NOW, "exp": NOW + 600, **changes}
    kept = {name: value for name, value in members.items() if value is not None}
    return sign_jws(kept, key=signing_key("freshness"), algorithm="ES256", keyid="freshness")


def checked(token: str, *, now: float = NOW, bundle: BundleIdentity = OURS) -> FreshnessStatement:
    return verify_statement(token, (KEY, NEXT_KEY), bundle, now=now)


def test_statement_is_accepted_when_it_is_about_this_bundle_and_new() -> None:
    token = stated()
    assert checked(token) == FreshnessStatement(OURS, NOW, NOW + 600, "freshness", token)


def test_statement_is_accepted_from_either_key_when_keys_overlap() -> None:
    assert checked(stated(key="freshness-2")).keyid == "freshness-2"
    assert checked(stated()).keyid == "freshness"


EDGES = {
    "made as far in the future as clocks may differ": NOW - CLOCK_LEEWAY_SECONDS,
    "in its last second": NOW + 599.999,
}


@pytest.mark.parametrize("moment", EDGES)
def test_statement_is_accepted_when(moment: str) -> None:
    assert checked(stated(), now=EDGES[moment]).expires_at == NOW + 600


BAD = {
    "has expired": (lambda: stated(now=NOW - 600), "freshness_expired"),
    "is yesterday's": (lambda: stated(now=NOW - 86_400), "freshness_expired"),
    "was made in the future": (lambda: stated(now=NOW + CLOCK_LEEWAY_SECONDS + 1), "freshness_future"),
    "is about another archive": (lambda: stated(replace(OURS, digest="sha256:" + "b" * 64)), "freshness_other_digest"),
    "is about another bundle": (lambda: stated(replace(OURS, name="side")), "freshness_other_bundle"),
    "states a lower sequence": (lambda: stated(replace(OURS, sequence=6)), "freshness_sequence"),
    "states a higher sequence": (lambda: stated(replace(OURS, sequence=8)), "freshness_sequence"),
    "is signed by a key nobody configured": (lambda: stated(key="theirs"), "freshness_key_unknown"),
    "is signed by another key under our key's name": (
        lambda: sign_statement(OURS, key=signing_key("theirs"), keyid="freshness", now=NOW, ttl_seconds=600),
        "freshness_invalid",
    ),
    "is signed by the bundle key": (
        lambda: sign_statement(OURS, key=signing_key(), keyid="bundle", now=NOW, ttl_seconds=600),
        "freshness_key_unknown",
    ),
    "is a bundle's signature": (lambda: token_of(good_bundle()), "freshness_key_unknown"),
    "names no key": (lambda: tokenised({"alg": "ES256"}, {"name": "main"}), "freshness_key_unknown"),
    "says alg none": (lambda: tokenised({"alg": "none", "kid": "freshness"}, {"name": "main"}), "freshness_invalid"),
    "is no token": (lambda: "gestern", "freshness_invalid"),
    "is empty": (lambda: "", "freshness_invalid"),
    "is longer than allowed": (lambda: "a" * (STATEMENT_MAX_BYTES + 1), "freshness_invalid"),
    "holds longer than allowed": (lambda: payload(exp=NOW + TTL_MAX_SECONDS + 1), "freshness_invalid"),
    "ends before it begins": (lambda: payload(exp=NOW - 1), "freshness_invalid"),
    "ends when it begins": (lambda: payload(exp=NOW), "freshness_invalid"),
    "has no end": (lambda: payload(exp=None), "freshness_invalid"),
    "has no iat": (lambda: payload(iat=None), "freshness_invalid"),
    "has a fractional iat": (lambda: payload(iat=NOW + 0.5), "freshness_invalid"),
    "has iat true": (lambda: payload(iat=True), "freshness_invalid"),
    "has a sequence in words": (lambda: payload(seq="7"), "freshness_invalid"),
    "has sequence zero": (lambda: payload(seq=0), "freshness_invalid"),
    "has a name that is no string": (lambda: payload(name=7), "freshness_invalid"),
    "has a digest of another kind": (lambda: payload(digest="md5:00"), "freshness_invalid"),
    "has a member nobody knows": (lambda: payload(nbf=NOW), "freshness_invalid"),
}


@pytest.mark.parametrize("fault", BAD)
def test_statement_is_refused_when_it(fault: str) -> None:
    make, code = BAD[fault]
    with pytest.raises(BundleRefused) as refused:
        checked(make())
    assert refused.value.code == code


def test_statement_is_refused_when_one_bit_changed() -> None:
    header, body, signature = stated().split(".")
    with pytest.raises(BundleRefused) as refused:
        checked(f"{header}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")
    assert refused.value.code == "freshness_invalid"


def test_statement_is_refused_when_its_key_was_removed() -> None:
    with pytest.raises(BundleRefused) as refused:
        read_statement(stated(), (NEXT_KEY,))
    assert refused.value.code == "freshness_key_unknown"


@pytest.mark.parametrize("ttl", [0, -1, TTL_MAX_SECONDS + 1])
def test_sign_statement_is_misuse_when_the_time_to_live_is_out_of_range(ttl: int) -> None:
    with pytest.raises(BundleMisuse):
        stated(ttl=ttl)


def test_statement_is_canonical_json_when_signed() -> None:
    token = stated()
    members = {"digest": OURS.digest, "exp": NOW + 600, "iat": NOW, "name": "main", "seq": 7}
    assert read_statement(token, (KEY,)).bundle == OURS
    assert json.loads(canonical_json(members)) == members
