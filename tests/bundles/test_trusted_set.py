"""Every way a bundle can be wrong, each with its stable code; and the good ones."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from bundles.archive import ArchiveLimits, read_archive, write_archive
from bundles.build import sign_files
from bundles.canonical import canonical_json
from bundles.errors import BundleMisuse, BundleRefused
from bundles.jws import sign_jws
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey, read_sequence
from tests.bundles.parts import (
    MANIFEST,
    NOW,
    OPTIONS,
    after_signing,
    good_bundle,
    good_files,
    payload_of,
    signed,
    signing_key,
    token_of,
    tokenised,
    trust,
    verified,
    with_file,
    with_payload,
    with_signatures,
    with_token,
)


def _one_byte_changed() -> bytes:
    files = read_archive(good_bundle())
    wasm = bytearray(files["policy.wasm"])
    wasm[0] ^= 1
    return write_archive({**files, "policy.wasm": bytes(wasm)})


def _manifest(**changes: Any) -> bytes:
    document = {**json.loads(MANIFEST), **changes}
    return with_file(
        ".manifest", json.dumps({key: item for key, item in document.items() if item is not None}).encode()
    )


def _metadata(**changes: Any) -> bytes:
    ours = {"version": 1, "profile": "1", "entrypoints": ["tidegate/decision"], "cacheable": False, **changes}
    return _manifest(metadata={"tidegate": ours})


def _flip_last_bit(token: str) -> str:
    """The same signature in base64url's other spelling, whose unused bits are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1] if alphabet.index(token[-1]) % 2 == 0 else token + "A"


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _files_claim(**changes: Any) -> list[Any]:
    listed: list[Any] = payload_of(good_bundle())["files"]
    return [{**entry, **changes} for entry in listed]


ROOTS = json.loads(MANIFEST)["roots"]
ES = {"alg": "ES256", "kid": "bundle"}

BAD = {
    "has no signature file": (lambda: write_archive(good_files()), "bundle_unsigned"),
    "lists no signature": (lambda: with_signatures(b'{"signatures":[]}'), "bundle_unsigned"),
    "lists two signatures": (
        lambda: with_signatures(canonical_json({"signatures": [token_of(good_bundle())] * 2})),
        "bundle_signature_invalid",
    ),
    "names a plugin that would verify": (
        lambda: with_signatures(canonical_json({"signatures": [token_of(good_bundle())], "plugin": "theirs"})),
        "bundle_signature_invalid",
    ),
    "has a signature file that is a list": (lambda: with_signatures(b"[]"), "bundle_signature_invalid"),
    "has a signature file that is null": (lambda: with_signatures(b"null"), "bundle_signature_invalid"),
    "has a signature file with a field nobody knows": (
        lambda: with_signatures(canonical_json({"signatures": [token_of(good_bundle())], "trust": True})),
        "bundle_signature_invalid",
    ),
    "lists its signature as a text": (
        lambda: with_signatures(canonical_json({"signatures": token_of(good_bundle())})),
        "bundle_unsigned",
    ),
    "lists its signature under another name": (lambda: with_signatures(b"{}"), "bundle_unsigned"),
    "lists a number for a signature": (lambda: with_signatures(b'{"signatures":[7]}'), "bundle_signature_invalid"),
    "lists a list for a signature": (lambda: with_signatures(b'{"signatures":[["x"]]}'), "bundle_signature_invalid"),
    "has a signature file that is no JSON": (lambda: with_signatures(b"{"), "bundle_signature_invalid"),
    "has a signature file with a duplicate key": (
        lambda: with_signatures(b'{"signatures":["a"],"signatures":["b"]}'),
        "bundle_signature_invalid",
    ),
    "is signed by another key under the trusted key's name": (
        lambda: sign_files(good_files(), signing_key("theirs"), OPTIONS),
        "bundle_signature_invalid",
    ),
    "is signed by a key nobody trusts": (
        lambda: sign_files(good_files(), signing_key("theirs"), replace(OPTIONS, keyid="theirs")),
        "bundle_key_unknown",
    ),
    "says alg none": (
        lambda: with_token(lambda token: tokenised({"alg": "none", "kid": "bundle"}, payload_of(good_bundle()))),
        "bundle_signature_invalid",
    ),
    "says HS256, for the public key as a secret": (
        lambda: with_token(lambda token: tokenised({"alg": "HS256", "kid": "bundle"}, payload_of(good_bundle()))),
        "bundle_signature_invalid",
    ),
    "says RS256 for an EC key": (
        lambda: with_token(lambda token: tokenised({"alg": "RS256", "kid": "bundle"}, payload_of(good_bundle()))),
        "bundle_signature_invalid",
    ),
    "has a critical header nobody understands": (
        lambda: with_token(lambda token: tokenised({**ES, "crit": ["b64"]}, payload_of(good_bundle()))),
        "bundle_signature_invalid",
    ),
    "names different keys in header and payload": (
        lambda: with_payload(keyid="other"),
        "bundle_signature_invalid",
    ),
    "names its key by a list": (
        lambda: with_token(lambda token: tokenised({**ES, "kid": ["bundle"]}, payload_of(good_bundle()))),
        "bundle_signature_invalid",
    ),
    "names its key by a number in the payload": (lambda: with_payload(keyid=7), "bundle_signature_invalid"),
    "has a signature one byte short": (
        lambda: with_token(lambda token: token.rpartition(".")[0] + "." + base64.urlsafe_b64encode(b"x" * 63).decode()),
        "bundle_signature_invalid",
    ),
    "has a DER signature": (
        lambda: with_token(lambda token: tokenised(ES, payload_of(good_bundle()), b"\x30" * 70)),
        "bundle_signature_invalid",
    ),
    "has a signature cut inside a letter": (
        lambda: with_token(lambda token: token.rpartition(".")[0] + ".AAAAA"),
        "bundle_signature_invalid",
    ),
    "has a token of two parts": (lambda: with_token(lambda token: token.rpartition(".")[0]), "bundle_signature_invalid"),
    "has a padded token": (lambda: with_token(lambda token: token + "=="), "bundle_signature_invalid"),
    "has its signature in another spelling": (lambda: with_token(_flip_last_bit), "bundle_signature_invalid"),
    "has a header with a duplicate key": (
        lambda: with_token(lambda token: _unpadded(b'{"alg":"ES256","alg":"ES256"}') + "." + token.partition(".")[2]),
        "bundle_signature_invalid",
    ),
    "has a header that is no object": (
        lambda: with_token(lambda token: "W10." + token.partition(".")[2]),
        "bundle_signature_invalid",
    ),
    "has another scope": (lambda: with_payload(scope="read"), "bundle_scope_mismatch"),
    "has no scope": (lambda: with_payload(scope=None), "bundle_claims_invalid"),
    "expired this second": (lambda: with_payload(exp=NOW), "bundle_expired"),
    "is valid later": (lambda: with_payload(nbf=NOW + 61), "bundle_not_yet_valid"),
    "was issued in the future": (lambda: with_payload(iat=NOW + 61), "bundle_not_yet_valid"),
    "has a text for exp": (lambda: with_payload(exp="never"), "bundle_claims_invalid"),
    "has a fraction for iat": (lambda: with_payload(iat=1.5), "bundle_claims_invalid"),
    "is meant for somebody else": (lambda: with_payload(aud=["other"]), "bundle_audience_mismatch"),
    "is meant for nobody": (lambda: with_payload(aud=[]), "bundle_claims_invalid"),
    "names no audience": (lambda: with_payload(aud=None), "bundle_claims_invalid"),
    "is another bundle": (lambda: with_payload(tidegate_name="other"), "bundle_name_mismatch"),
    "has no sequence": (lambda: with_payload(tidegate_seq=None), "bundle_claims_invalid"),
    "has sequence 0": (lambda: with_payload(tidegate_seq=0), "bundle_claims_invalid"),
    "has true for a sequence": (lambda: with_payload(tidegate_seq=True), "bundle_claims_invalid"),
    "has another epoch": (lambda: with_payload(tidegate_epoch=1), "bundle_epoch_mismatch"),
    "lists no files": (lambda: with_payload(files=None), "bundle_claims_invalid"),
    "lists a file twice": (lambda: with_payload(files=_files_claim() * 2), "bundle_claims_invalid"),
    "hashes with SHA-1": (lambda: with_payload(files=_files_claim(algorithm="SHA-1")), "bundle_claims_invalid"),
    "hashes with OPA's misspelt SHA256": (
        lambda: with_payload(files=_files_claim(algorithm="SHA256")),
        "bundle_claims_invalid",
    ),
    "lists a file with an unknown field": (lambda: with_payload(files=_files_claim(size=1)), "bundle_claims_invalid"),
    "has one byte changed": (_one_byte_changed, "bundle_file_changed"),
    "has a value in data changed": (lambda: after_signing(chains__data_dot_json=b"{}"), "bundle_file_changed"),
    "has an extra file": (lambda: after_signing(policies__x__y_dot_rego=b"package policies.x"), "bundle_file_unlisted"),
    "lacks a file": (lambda: after_signing(policies__x__x_dot_rego=None), "bundle_file_missing"),
    "lacks its manifest": (
        lambda: signed({name: raw for name, raw in good_files().items() if name != ".manifest"}),
        "bundle_manifest_invalid",
    ),
    "has a second manifest below": (lambda: with_file("policies/.manifest", MANIFEST), "bundle_file_unknown"),
    "has a second signature file below": (lambda: with_file("x/.signatures.json", b"{}"), "bundle_file_unknown"),
    "carries YAML": (lambda: with_file("chains/data.yaml", b"a: 1"), "bundle_file_unknown"),
    "is a delta": (lambda: with_file("patch.json", b'{"data":[]}'), "bundle_file_unknown"),
    "has a file of no known kind": (lambda: with_file("run.sh", b"#!/bin/sh"), "bundle_file_unknown"),
    "has OPA's wasm key": (lambda: _manifest(wasm=[]), "bundle_manifest_invalid"),
    "has a number for a revision": (lambda: _manifest(revision=1), "bundle_manifest_invalid"),
    "is Rego v0": (lambda: _manifest(rego_version=0), "bundle_manifest_invalid"),
    "has overlapping roots": (lambda: _manifest(roots=[*ROOTS, "policies/x"]), "bundle_manifest_invalid"),
    "has no roots": (lambda: _manifest(roots=[]), "bundle_manifest_invalid"),
    "has Rego outside its roots": (lambda: _manifest(roots=["chains", "tidegate"]), "bundle_manifest_invalid"),
    "has data outside its roots": (lambda: _manifest(roots=["policies", "tidegate"]), "bundle_manifest_invalid"),
    "has a manifest that is a list": (lambda: with_file(".manifest", b"[]"), "bundle_manifest_invalid"),
    "has metadata of another version": (lambda: _metadata(version=2), "bundle_manifest_invalid"),
    "has metadata nobody knows": (lambda: _metadata(skip_checks=True), "bundle_manifest_invalid"),
    "has a text for cacheable": (lambda: _metadata(cacheable="no"), "bundle_manifest_invalid"),
    "has an entry point that is no path": (lambda: _metadata(entrypoints=["a b"]), "bundle_manifest_invalid"),
    "has a text for entry points": (lambda: _metadata(entrypoints="tidegate/decision"), "bundle_manifest_invalid"),
    "has a duplicate key in data": (lambda: _raw_data(b'{"a":1,"a":2}'), "bundle_json_invalid"),
    "has an escaped twin of a key in data": (lambda: _raw_data(b'{"a":1,"\\u0061":2}'), "bundle_json_invalid"),
    "has NaN in data": (lambda: _raw_data(b'{"a":NaN}'), "bundle_json_invalid"),
    "has data too deep": (lambda: _raw_data(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"), "bundle_json_invalid"),
    "has data where a package is": (
        lambda: with_file("policies/x/data.json", b'{"allow":["everybody"]}'),
        "bundle_data_conflict",
    ),
    "has data where a policy could be": (
        lambda: with_file("policies/y/data.json", b'{"allow":["everybody"]}'),
        "bundle_data_conflict",
    ),
    "has data among the policies in its root document": (
        lambda: with_file("data.json", b'{"policies":{"y":{"allow":["everybody"]}}}'),
        "bundle_data_conflict",
    ),
    "has data where the library is": (
        lambda: with_file("tidegate/data.json", b'{"decision":{"effect":"ALLOW"}}'),
        "bundle_data_conflict",
    ),
    "has a package where data is": (
        lambda: with_file("chains/x.rego", b'package chains["one-approver"]\n'),
        "bundle_data_conflict",
    ),
    "has a package below a list in data": (
        lambda: with_file("chains/x.rego", b'package chains["one-approver"].steps.x\n'),
        "bundle_data_conflict",
    ),
    "has data above a package": (lambda: with_file("policies/data.json", b"[]"), "bundle_data_conflict"),
    "has the same data twice": (
        lambda: with_file("data.json", b'{"chains":{"one-approver":{"steps":1}}}'),
        "bundle_data_conflict",
    ),
    "has root data that is a list": (lambda: with_file("data.json", b"[]"), "bundle_json_invalid"),
    "has a probe without a decision": (lambda: with_file("probes/p.json", b'{"input":{}}'), "bundle_json_invalid"),
    "has a probe whose input is a list": (
        lambda: with_file("probes/p.json", b'{"input":[],"decision":{}}'),
        "bundle_json_invalid",
    ),
    "has a probe that is a list": (lambda: with_file("probes/p.json", b'["input","decision"]'), "bundle_json_invalid"),
    "has a probe that is a text": (lambda: with_file("probes/p.json", b'"input"'), "bundle_json_invalid"),
    "has a probe with a field nobody knows": (
        lambda: with_file("probes/p.json", b'{"input":{},"decision":{},"skip":true}'),
        "bundle_json_invalid",
    ),
    "has a probe whose decision is a text": (
        lambda: with_file("probes/p.json", b'{"input":{},"decision":"ALLOW"}'),
        "bundle_json_invalid",
    ),
    "has a probe that is no JSON": (lambda: with_file("probes/p.json", b"{"), "bundle_json_invalid"),
    "has true for a Rego version": (lambda: _manifest(rego_version=True), "bundle_manifest_invalid"),
    "has a fraction for a Rego version": (lambda: _manifest(rego_version=1.0), "bundle_manifest_invalid"),
    "has a text for roots": (lambda: _manifest(roots="policies"), "bundle_manifest_invalid"),
    "has an object for roots": (lambda: _manifest(roots=dict.fromkeys(ROOTS, 1)), "bundle_manifest_invalid"),
    "has a number among its roots": (lambda: _manifest(roots=[*ROOTS, 1]), "bundle_manifest_invalid"),
    "has the same root twice": (lambda: _manifest(roots=[*ROOTS, "/policies/"]), "bundle_manifest_invalid"),
    "has every root and another": (lambda: _manifest(roots=["", *ROOTS]), "bundle_manifest_invalid"),
    "has our metadata as an empty list": (lambda: _manifest(metadata={"tidegate": []}), "bundle_manifest_invalid"),
    "has one word for entry points": (lambda: _metadata(entrypoints="decision"), "bundle_manifest_invalid"),
    "has a number where another file has an object": (
        lambda: with_file("data.json", b'{"chains":1}'),
        "bundle_data_conflict",
    ),
    "has a probe of another ending": (
        lambda: with_file("probes/p.txt", b'{"input":{},"decision":{}}'),
        "bundle_file_unknown",
    ),
    "has metadata that is a list": (lambda: _manifest(metadata=["tidegate"]), "bundle_manifest_invalid"),
    "has our metadata as a list": (lambda: _manifest(metadata={"tidegate": [1]}), "bundle_manifest_invalid"),
    "has metadata without a version": (lambda: _manifest(metadata={"tidegate": {}}), "bundle_manifest_invalid"),
    "has a number for a profile": (lambda: _metadata(profile=1), "bundle_manifest_invalid"),
    "has a number for cacheable": (lambda: _metadata(cacheable=1), "bundle_manifest_invalid"),
    "has a number among its entry points": (lambda: _metadata(entrypoints=[1]), "bundle_manifest_invalid"),
    "has an entry point that begins with a slash": (
        lambda: _metadata(entrypoints=["/tidegate/decision"]),
        "bundle_manifest_invalid",
    ),
    "has a package over two lines": (
        lambda: with_file("policies/x/y.rego", b"package\npolicies.x\n"),
        "bundle_rego_invalid",
    ),
    "has a rule behind its package": (
        lambda: with_file("policies/x/y.rego", b"package policies.x; allow := {1}\n"),
        "bundle_rego_invalid",
    ),
    "has Rego of comments only": (lambda: with_file("policies/x/y.rego", b"# nothing\n"), "bundle_rego_invalid"),
    "has Rego without a package": (lambda: with_file("policies/x/y.rego", b"allow := true"), "bundle_rego_invalid"),
}  # fmt: skip


def _raw_data(content: bytes) -> bytes:
    """A bundle with any bytes for data, listed with a right-looking hash and signed by the right key."""
    files = read_archive(with_payload(files=[*_files_claim(), {
        "name": "limits/data.json", "hash": "0" * 64, "algorithm": "SHA-256"}]))  # fmt: skip
    return write_archive({**files, "limits/data.json": content})


@pytest.mark.parametrize(("make", "code"), BAD.values(), ids=BAD.keys())
def test_bundle_is_refused_when_it(make: Any, code: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        verified(make())
    assert refused.value.code == code


def test_bundle_is_trusted_when_everything_holds() -> None:
    trusted = verified(good_bundle(), highest=7)
    assert (trusted.name, trusted.sequence, trusted.epoch, trusted.revision) == ("main", 7, 0, "r1")
    assert trusted.digest.startswith("sha256:") and trusted.keyids == ("bundle",)
    assert sorted(trusted.rego) == ["lib/tidegate/decision.rego", "policies/x/x.rego"]
    assert list(trusted.data) == ["chains"] and [probe.name for probe in trusted.probes] == ["case-1"]
    assert trusted.profile == "1" and trusted.entrypoints == ("tidegate/decision",) and not trusted.cacheable
    assert trusted.expires_at == NOW + 3600 and trusted.wasm is not None


def test_bundle_is_trusted_when_the_second_before_it_expires() -> None:
    assert verified(with_payload(exp=NOW + 1)).expires_at == NOW + 1


def test_bundle_is_trusted_when_it_never_expires() -> None:
    assert verified(with_payload(exp=None)).expires_at is None


def test_bundle_is_trusted_when_issued_within_the_leeway() -> None:
    assert verified(with_payload(iat=NOW + 60)).sequence == 7


def test_bundle_is_trusted_when_it_names_the_plugin_that_opa_writes() -> None:
    document = {"signatures": [token_of(good_bundle())], "plugin": "_default"}
    assert verified(with_signatures(canonical_json(document))).sequence == 7


@pytest.mark.parametrize("revision", [None, ""])
def test_bundle_is_known_by_its_digest_when_it_names_no_revision(revision: str | None) -> None:
    trusted = verified(_manifest(revision=revision))
    assert trusted.digest == f"sha256:{trusted.revision}"


GOOD = {
    "every root is its own": lambda: _manifest(roots=[""]),
    "roots are left out": lambda: _manifest(roots=None),
    "roots have slashes around them": lambda: _manifest(roots=["/chains/", "policies/x/", "/tidegate"]),
    "metadata of others rides along": lambda: _manifest(metadata={"theirs": 1}),
    "its profile is null": lambda: _metadata(profile=None),
    "the Rego version is left out": lambda: _manifest(rego_version=None),
    "a probe has a note": lambda: with_file("probes/p.json", b'{"input":{},"decision":{},"note":"why"}'),
    "a package is followed by a remark": lambda: with_file("policies/x/y.rego", b"# a\n\npackage policies.x # b\n"),
    "a package is named in brackets": lambda: with_file("policies/x/y.rego", b'package policies["x-y"].z\n'),
    "data stands beside a package": lambda: with_file("chains/x.rego", b"package chains.two\n"),
    "data of two files meets in one object": lambda: with_file("chains/more/data.json", b'{"steps":[]}'),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD.keys())
def test_bundle_is_trusted_when(make: Any) -> None:
    assert verified(make()).sequence == 7


def test_bundle_without_profile_is_trusted_but_says_so() -> None:
    assert verified(_manifest(metadata=None)).profile is None


def test_bundle_is_refused_when_a_higher_sequence_was_seen() -> None:
    with pytest.raises(BundleRefused) as refused:
        verified(good_bundle(), highest=8)
    assert refused.value.code == "bundle_rollback"


def test_bundle_is_refused_when_more_signatures_are_required_than_it_can_show() -> None:
    with pytest.raises(BundleRefused) as refused:
        verified(good_bundle(), threshold=2)
    assert refused.value.code == "bundle_threshold"


def test_bundle_is_refused_when_its_data_has_50_megabytes() -> None:
    raw = with_file("limits/data.json", b'{"a":"' + b"x" * (50 << 20) + b'"}')
    with pytest.raises(BundleRefused) as refused:
        verified(raw)
    assert refused.value.code == "bundle_too_large"


def test_bundle_is_refused_when_the_configured_limit_is_one_file_less() -> None:
    count = len(good_files()) + 1
    assert verified(good_bundle(), limits=ArchiveLimits(files_max_count=count)).sequence == 7
    with pytest.raises(BundleRefused) as refused:
        verified(good_bundle(), limits=ArchiveLimits(files_max_count=count - 1))
    assert refused.value.code == "bundle_too_large"


def _nameless() -> bytes:
    """Signed by our key, without any key id, as `opa build` does by default."""
    payload = {name: value for name, value in payload_of(good_bundle()).items() if name != "keyid"}
    token = sign_jws(payload, key=signing_key(), algorithm="ES256", keyid="")
    return with_signatures(canonical_json({"signatures": [token]}))


def _ed25519() -> bytes:
    return (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _key(name: str, private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: str = "ES256") -> TrustedKey:
    return TrustedKey(name, algorithm, "write", public_pem(private))


def test_bundle_is_trusted_when_it_names_no_key_and_one_of_several_signed() -> None:
    keys = (_key("a", signing_key("a")), _key("b", signing_key()), _key("c", signing_key("c")))
    assert verified(_nameless(), keys=keys).keyids == ("b",)
    assert verified(_nameless(), keys=keys[:2]).keyids == ("b",)


def test_bundle_is_refused_when_it_names_no_key_and_none_signed() -> None:
    with pytest.raises(BundleRefused) as refused:
        verified(_nameless(), keys=(_key("a", signing_key("a")), _key("c", signing_key("c"))))
    assert refused.value.code == "bundle_signature_invalid"


WEAK = {
    "a short RSA key": lambda: _key("bundle", rsa.generate_private_key(65537, 2048), "RS256"),
    "a shared secret": lambda: TrustedKey("bundle", "HS256", "write", b"secret"),
    "EdDSA, which OPA cannot check": lambda: TrustedKey("bundle", "EdDSA", "write", public_pem(signing_key())),
    "an algorithm for another curve": lambda: _key("bundle", signing_key(), "ES384"),
    "an Ed25519 key": lambda: TrustedKey("bundle", "ES256", "write", _ed25519()),
    "no PEM": lambda: TrustedKey("bundle", "ES256", "write", b"nothing"),
}


@pytest.mark.parametrize("make", WEAK.values(), ids=WEAK.keys())
def test_trust_is_refused_when_its_key_is(make: Any) -> None:
    key = make()
    raw = with_token(lambda token: tokenised({"alg": key.algorithm, "kid": "bundle"}, payload_of(good_bundle())))
    with pytest.raises(BundleMisuse) as misuse:
        verified(raw, keys=(key,))
    assert misuse.value.code == "bundle_key_unfit"


def test_trust_is_refused_when_it_has_no_keys() -> None:
    with pytest.raises(BundleMisuse):
        verified(good_bundle(), keys=())


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "PS384", "ES384", "ES512"])
def test_bundle_is_trusted_when_signed_with(algorithm: str) -> None:
    curves = {"ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    private: Any = (
        ec.generate_private_key(curves[algorithm]) if algorithm in curves else rsa.generate_private_key(65537, 3072)
    )
    token = sign_jws(payload_of(good_bundle()), key=private, algorithm=algorithm, keyid="bundle")
    raw = with_signatures(canonical_json({"signatures": [token]}))
    assert verified(raw, keys=(_key("bundle", private, algorithm),)).sequence == 7


def test_sequence_is_read_whatever_the_clock_says_when_the_key_is_trusted() -> None:
    assert read_sequence(with_payload(exp=1), trust()) == 7
    assert read_sequence(with_payload(tidegate_name="other"), trust()) == 0
