"""The signed payload: every claim of the wrong type is refused, and files are held against their list both ways."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from bundles.canonical import canonical_json, sha256_hex
from bundles.claims import BundleClaims, check_files, hash_file, list_files, read_claims
from bundles.errors import BundleRefused

ENTRY = {"name": "policy.wasm", "hash": "0" * 64, "algorithm": "SHA-256"}
PAYLOAD: dict[str, Any] = {
    "tidegate_name": "main", "scope": "write", "aud": ["tidegate"], "tidegate_seq": 1, "tidegate_epoch": 0,
    "files": [ENTRY], "exp": 3, "nbf": 1, "iat": 2,
}  # fmt: skip


def _read(**changes: Any) -> BundleClaims:
    payload = {**PAYLOAD, **changes}
    return read_claims({name: value for name, value in payload.items() if value != "gone"})


def test_claims_are_read_when_all_are_there() -> None:
    assert _read() == BundleClaims(
        name="main", scope="write", audience=("tidegate",), sequence=1, epoch=0, files={"policy.wasm": "0" * 64},
        expires_at=3, not_before=1, issued_at=2,
    )  # fmt: skip


ACCEPTED = {
    "no instant is given": ({"exp": "gone", "nbf": "gone", "iat": "gone"}, (None, None, None)),
    "instants are the first": ({"exp": 0, "nbf": 0, "iat": 0}, (0, 0, 0)),
    "the audience is one text": ({"aud": "tidegate"}, (3, 1, 2)),
    "a claim of somebody else rides along": ({"sub": ["anything"]}, (3, 1, 2)),
    "a listed name begins with OPA's slash": ({"files": [{**ENTRY, "name": "/policy.wasm"}]}, (3, 1, 2)),
}


@pytest.mark.parametrize(("changes", "instants"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_claims_are_read_when(changes: dict[str, Any], instants: tuple[int | None, ...]) -> None:
    claims = _read(**changes)
    assert (claims.expires_at, claims.not_before, claims.issued_at) == instants
    assert (claims.audience, list(claims.files)) == (("tidegate",), ["policy.wasm"])


NO_TEXT = {"missing": "gone", "null": None, "empty": "", "a number": 1, "a list": ["main"], "an object": {}}
NO_INSTANT = {"null": None, "a text": "1", "a fraction": 1.0, "a truth": True, "negative": -1, "a list": [1]}
NO_AUDIENCE = {
    **NO_TEXT, "a list": [1], "an empty list": [], "a list with an empty text": ["tidegate", ""],
    "a list with a null": ["tidegate", None], "a list of lists": [["tidegate"]],
}  # fmt: skip
NO_FILES = {
    "missing": "gone",
    "null": None,
    "an object": {"policy.wasm": "0"},
    "a list of names": ["policy.wasm"],
    "an entry without a hash": [{"name": "a", "algorithm": "SHA-256"}],
    "an entry with a size": [{**ENTRY, "size": 1}],
    "an entry whose name is a number": [{**ENTRY, "name": 1}],
    "an entry whose hash is null": [{**ENTRY, "hash": None}],
    "an entry of another algorithm": [{**ENTRY, "algorithm": "SHA-512"}],
    "an entry twice": [ENTRY, ENTRY],
    "an entry twice, once with a slash": [ENTRY, {**ENTRY, "name": "/policy.wasm"}],
}
REFUSED = {
    **{f"{claim}: {what}": {claim: value} for claim in ("tidegate_name", "scope") for what, value in NO_TEXT.items()},
    **{
        f"{claim}: {what}": {claim: value}
        for claim in ("tidegate_seq", "tidegate_epoch", "exp", "nbf", "iat")
        for what, value in NO_INSTANT.items()
    },
    **{f"aud: {what}": {"aud": value} for what, value in NO_AUDIENCE.items()},
    **{f"files: {what}": {"files": value} for what, value in NO_FILES.items()},
    "tidegate_seq: missing": {"tidegate_seq": "gone"},
    "tidegate_seq: 0": {"tidegate_seq": 0},
    "tidegate_epoch: missing": {"tidegate_epoch": "gone"},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_claims_are_refused_when(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleRefused) as refused:
        _read(**changes)
    assert refused.value.code == "bundle_claims_invalid"
    assert next(iter(changes)).removeprefix("tidegate_") in refused.value.detail or "files" in changes


FILES = {"chains/data.json": b'{"b":1,"a":[2]}', "policy.wasm": b"\0asm", ".manifest": b'{"revision":""}'}
LISTED = {entry["name"]: entry["hash"] for entry in list_files(FILES)}  # type: ignore[index, call-overload]

DIFFERENT = {
    "a file is missing": ({"policy.wasm": None}, "bundle_file_missing"),
    "a file is added": ({"policies/x/x.rego": b"package policies.x"}, "bundle_file_unlisted"),
    "a byte is added": ({"policy.wasm": b"\0asm\0"}, "bundle_file_changed"),
    "a value in data is another": ({"chains/data.json": b'{"b":2,"a":[2]}'}, "bundle_file_changed"),
    "a value in data has another type": ({"chains/data.json": b'{"b":"1","a":[2]}'}, "bundle_file_changed"),
    "the manifest is another": ({".manifest": b'{"revision":"x"}'}, "bundle_file_changed"),
    "data is no JSON": ({"chains/data.json": b"{"}, "bundle_json_invalid"),
    "data names a key twice": ({"chains/data.json": b'{"b":0,"b":1,"a":[2]}'}, "bundle_json_invalid"),
}


@pytest.mark.parametrize(("changes", "code"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_files_are_refused_when(changes: dict[str, bytes | None], code: str) -> None:
    files = {name: content for name, content in {**FILES, **changes}.items() if content is not None}
    with pytest.raises(BundleRefused) as refused:
        check_files(files, LISTED)
    assert refused.value.code == code


def test_files_are_taken_when_data_is_only_written_otherwise() -> None:
    check_files(FILES, LISTED)
    check_files({**FILES, "chains/data.json": b'{ "a": [2],\n "b": 1 }'}, LISTED)


def test_hash_is_of_the_bytes_when_a_file_is_not_structured() -> None:
    content = b'{ "b": 1, "a": 2 }'
    assert hash_file("probes/p.json", content) == sha256_hex(content)
    assert hash_file("x/data.json", content) == hashlib.sha256(canonical_json({"a": 2, "b": 1})).hexdigest()
