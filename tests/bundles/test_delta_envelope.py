"""The envelope around a delta: who signed it, for which bundle and base, until when; and everything else is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from bundles.archive import read_archive
from bundles.canonical import canonical_json, sha256_hex
from bundles.delta import make_delta
from bundles.delta_envelope import (
    DELTA_MAX_BYTES,
    KIND,
    DeltaHead,
    SealedDelta,
    inspect_delta,
    open_delta,
    seal_delta,
)
from bundles.dsse import PAYLOAD_TYPE, EnvelopeKind, cosign, pre_authentication, seal
from bundles.errors import BundleRefused
from bundles.freshness import CLOCK_LEEWAY_SECONDS, BundleIdentity
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey
from tests.bundles.parts import NOW, good_bundle, good_files, signed, signing_key
from tests.bundles.test_freshness import KEY, NEXT_KEY, stated

RAW = good_bundle()
NEWER = signed({**good_files(), "chains/data.json": b"{}"}, sequence=8)
HELD = BundleIdentity("main", f"sha256:{sha256_hex(RAW)}", 7)
TARGET = BundleIdentity("main", f"sha256:{sha256_hex(NEWER)}", 8)
HEAD = DeltaHead(TARGET, HELD.digest, 0, NOW, NOW + 600)
ARCHIVE = make_delta(RAW, NEWER) or b""


def sealed(archive: bytes = ARCHIVE, *, key: str = "freshness", keyid: str | None = None, **head: Any) -> bytes:
    """A delta, sealed by one of the test's keys, its head altered."""
    about = {name: head.pop(name) for name in ("name", "digest", "sequence") if name in head}
    changed = replace(HEAD, target=replace(TARGET, **about), **head)
    return seal_delta(SealedDelta(changed, archive), key=signing_key(key), keyid=keyid or key)


def headed(line: Any, archive: bytes = ARCHIVE) -> bytes:
    """A properly signed payload with any first line."""
    raw = line if isinstance(line, bytes) else canonical_json(line) + b"\n"
    return seal(raw + archive, KIND, key=signing_key("freshness"), keyid="freshness")


def members(**changes: Any) -> dict[str, Any]:
    """The members of a good head, some replaced (``None`` removes one)."""
    all_: dict[str, Any] = {
        "v": 1, "name": "main", "base": HELD.digest, "digest": TARGET.digest, "seq": 8, "epoch": 0, "iat": NOW,
        "exp": NOW + 600, **changes,
    }  # fmt: skip
    return {name: value for name, value in all_.items() if value is not None}


def altered(**changes: Any) -> bytes:
    """A good envelope with members replaced."""
    document: dict[str, Any] = {**json.loads(sealed()), **changes}
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def opened(raw: bytes, *, now: float = NOW, base: BundleIdentity = HELD, epoch: int = 0) -> SealedDelta:
    return open_delta(raw, (KEY, NEXT_KEY), base, epoch=epoch, now=now)


def test_delta_is_opened_when_it_is_for_the_bundle_in_force() -> None:
    assert opened(sealed()) == SealedDelta(HEAD, ARCHIVE)


def test_delta_is_opened_from_either_key_when_keys_overlap() -> None:
    assert opened(sealed(key="freshness-2")).archive == ARCHIVE


def test_delta_is_opened_when_its_archive_has_line_feeds() -> None:
    assert opened(sealed(b"a\nb\n\n")).archive == b"a\nb\n\n"


@pytest.mark.parametrize("now", [NOW - CLOCK_LEEWAY_SECONDS, NOW + 599], ids=["as early as can be", "at its end"])
def test_delta_is_opened_when_it_is(now: int) -> None:
    assert opened(sealed(), now=now).head == HEAD


def _flipped() -> bytes:
    """One bit of the payload is another."""
    payload = bytearray(base64.b64decode(json.loads(sealed())["payload"]))
    payload[-1] ^= 1
    return altered(payload=base64.b64encode(bytes(payload)).decode())


def _two_signatures() -> bytes:
    signatures = json.loads(sealed())["signatures"] + json.loads(sealed(key="freshness-2"))["signatures"]
    return altered(signatures=signatures)


def _of_another_type() -> bytes:
    """Signed by the right key as something else, then called a delta."""
    other = EnvelopeKind("text/plain", DELTA_MAX_BYTES, "x", "x", "x")
    payload = base64.b64decode(json.loads(sealed())["payload"])
    document = json.loads(seal(payload, other, key=signing_key("freshness"), keyid="freshness"))
    return json.dumps({**document, "payloadType": KIND.payload_type}).encode()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nobody signed it": (lambda: altered(signatures=[]), "delta_unsigned"),
    "it came without an envelope": (lambda: ARCHIVE, "delta_signature_invalid"),
    "a stranger signed it": (lambda: sealed(key="theirs"), "delta_key_unknown"),
    "the bundle key signed it": (lambda: sealed(key="ours", keyid="bundle"), "delta_key_unknown"),
    "a stranger signed it under the key's name": (
        lambda: sealed(key="theirs", keyid="freshness"),
        "delta_signature_invalid",
    ),
    "the other key's name stands on it": (
        lambda: sealed(key="freshness-2", keyid="freshness"),
        "delta_signature_invalid",
    ),
    "it was altered": (_flipped, "delta_signature_invalid"),
    "it has two signatures": (_two_signatures, "delta_signature_invalid"),
    "the key signed it as something else": (_of_another_type, "delta_signature_invalid"),
    "it says it is something else": (lambda: altered(payloadType=PAYLOAD_TYPE), "delta_signature_invalid"),
    "it is a co-signature": (
        lambda: cosign("main", TARGET.digest, key=signing_key("freshness"), keyid="freshness"),
        "delta_signature_invalid",
    ),
    "it is a freshness statement": (lambda: stated(TARGET).encode(), "delta_signature_invalid"),
    "it is a page": (lambda: b"<html>", "delta_signature_invalid"),
    "it is empty": (lambda: b"", "delta_signature_invalid"),
    "it lacks its payload": (lambda: altered(payload=None), "delta_signature_invalid"),
    "its payload is no base64": (lambda: altered(payload="*"), "delta_signature_invalid"),
    "it is one byte too long": (lambda: sealed().ljust(DELTA_MAX_BYTES + 1), "delta_too_large"),
    "it is of another bundle": (lambda: sealed(name="side"), "delta_other_bundle"),
    "it begins at another base": (lambda: sealed(base="sha256:" + "b" * 64), "delta_other_base"),
    "it begins at its own target": (lambda: sealed(base=TARGET.digest), "delta_other_base"),
    "it is of another epoch": (lambda: sealed(epoch=1), "delta_epoch_mismatch"),
    "it leads to the same sequence": (lambda: sealed(sequence=7), "delta_not_newer"),
    "it leads downwards": (lambda: sealed(sequence=6), "delta_not_newer"),
    "it is from the future": (
        lambda: sealed(issued_at=NOW + CLOCK_LEEWAY_SECONDS + 1, expires_at=NOW + 600),
        "delta_future",
    ),
    "it has ended": (lambda: sealed(issued_at=NOW - 600, expires_at=NOW), "delta_expired"),
    "it is yesterday's": (lambda: sealed(issued_at=NOW - 86_400, expires_at=NOW - 85_800), "delta_expired"),
    "it never ends": (lambda: sealed(expires_at=NOW + 10**9), "delta_envelope_invalid"),
    "it ends before it began": (lambda: sealed(expires_at=NOW - 1), "delta_envelope_invalid"),
    "it has no line about itself": (lambda: headed(b"", archive=b"x"), "delta_envelope_invalid"),
    "its line is no JSON": (lambda: headed(b"{\n"), "delta_envelope_invalid"),
    "its line is too long": (lambda: headed(members(name="m" * 3000)), "delta_envelope_invalid"),
    "its line is a list": (lambda: headed([]), "delta_envelope_invalid"),
    "its line has a member more": (lambda: headed(members(run="x")), "delta_envelope_invalid"),
    "its line lacks its base": (lambda: headed(members(base=None)), "delta_envelope_invalid"),
    "it is of another version": (lambda: headed(members(v=2)), "delta_envelope_invalid"),
    "its name is a number": (lambda: headed(members(name=1)), "delta_envelope_invalid"),
    "its base is a number": (lambda: headed(members(base=1)), "delta_envelope_invalid"),
    "its digest is a number": (lambda: headed(members(digest=1)), "delta_envelope_invalid"),
    "its sequence is a text": (lambda: headed(members(seq="8")), "delta_envelope_invalid"),
    "its sequence is true": (lambda: headed(members(seq=True)), "delta_envelope_invalid"),
    "its epoch is negative": (lambda: headed(members(epoch=-1)), "delta_envelope_invalid"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_delta_is_refused_when(fault: str) -> None:
    make, code = REFUSED[fault]
    with pytest.raises(BundleRefused) as refused:
        opened(make())
    assert refused.value.code == code


def test_signature_covers_type_head_and_archive_when_sealed() -> None:
    payload = base64.b64decode(json.loads(sealed())["payload"])
    assert payload == canonical_json(members()) + b"\n" + ARCHIVE
    assert pre_authentication(payload, KIND.payload_type).startswith(
        b"DSSEv1 37 application/vnd.tidegate.bundle-delta "
    )


def test_inspection_shows_head_and_plan_when_nothing_was_verified() -> None:
    seen = inspect_delta(sealed(key="theirs"))
    assert (seen["kind"], seen["verified"], seen["keyids"]) == ("delta", False, ["theirs"])
    assert (seen["base"], seen["digest"], seen["sequence"]) == (HELD.digest, TARGET.digest, 8)
    assert seen["edited"] == {
        ".signatures.json": len(read_archive(NEWER)[".signatures.json"]),
        "chains/data.json": 2,
    }


def test_delta_is_refused_when_the_key_is_configured_for_another_algorithm() -> None:
    wide = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    raw = seal_delta(SealedDelta(HEAD, ARCHIVE), key=wide, keyid="rsa")
    trusted = TrustedKey("rsa", "PS256", "freshness", public_pem(wide))
    assert open_delta(raw, (trusted,), HELD, epoch=0, now=NOW).archive == ARCHIVE
    with pytest.raises(BundleRefused) as refused:
        open_delta(raw, (replace(trusted, algorithm="RS256"),), HELD, epoch=0, now=NOW)
    assert refused.value.code == "delta_signature_invalid"
