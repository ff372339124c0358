"""Makers of bundles for tests: a good one, and every way to spoil it before or after it is signed."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from bundles.archive import read_archive, write_archive
from bundles.build import SigningOptions, sign_files
from bundles.canonical import canonical_json
from bundles.jws import PrivateKey, sign_jws
from bundles.keys import public_pem
from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, verify_bundle

NOW = 1_800_000_000
OPTIONS = SigningOptions(sequence=7, issued_at=NOW - 60, expires_at=NOW + 3600)

MANIFEST = canonical_json(
    {
        "revision": "r1",
        "roots": ["chains", "connectors", "policies", "tidegate"],
        "rego_version": 1,
        "metadata": {
            "tidegate": {"version": 1, "profile": "1", "entrypoints": ["tidegate/decision"], "cacheable": False}
        },
    }
)
LIBRARY = b'package tidegate\n\ndecision := {"effect": "ALLOW"} if count(data.policies.x.allow) > 0\n'
POLICY = b'package policies.x\n\nallow contains "reader" if "reader" in input.subject.properties.roles\n'


@lru_cache(maxsize=64)
def signing_key(name: str = "ours") -> PrivateKey:
    """One P-256 key per name and run."""
    return ec.generate_private_key(ec.SECP256R1())


def good_files() -> dict[str, bytes]:
    """The files of a small bundle, without a signature."""
    return {
        ".manifest": MANIFEST,
        "lib/tidegate/decision.rego": LIBRARY,
        "policies/x/x.rego": POLICY,
        "chains/data.json": b'{"one-approver":{"steps":[{"id":"a","quorum":1,"role":"approver"}]}}',
        "policy.wasm": b"\0asm\1\0\0\0",
        "probes/case-1.json": b'{"decision":{"effect":"DENY"},"input":{"v":1}}',
    }


def good_bundle(options: SigningOptions = OPTIONS, **changed: bytes) -> bytes:
    """A signed bundle; keyword arguments are not needed by most tests."""
    return sign_files(good_files(), signing_key(), options)


def signed(files: Mapping[str, bytes], **options: Any) -> bytes:
    """Any files, properly signed."""
    return sign_files(files, signing_key(), replace(OPTIONS, **options))


def with_file(name: str, content: bytes) -> bytes:
    """A properly signed bundle with one file added or replaced before signing."""
    return signed({**good_files(), name: content})


def with_payload(**claims: Any) -> bytes:
    """A bundle whose claims are replaced (``None`` removes one) and then signed by the right key."""
    raw = good_bundle()
    payload = payload_of(raw)
    payload.update(claims)
    payload = {name: value for name, value in payload.items() if value is not None}
    token = sign_jws(payload, key=signing_key(), algorithm="ES256", keyid="bundle")
    return with_signatures(canonical_json({"signatures": [token]}), raw)


def with_signatures(content: bytes, raw: bytes | None = None) -> bytes:
    """The same archive with other bytes in its signatures file."""
    files = read_archive(raw or good_bundle())
    return write_archive({**files, ".signatures.json": content})


def with_token(change: Any) -> bytes:
    """The same archive with its token put through ``change``."""
    return with_signatures(canonical_json({"signatures": [change(token_of(good_bundle()))]}))


def after_signing(**changes: bytes | None) -> bytes:
    """Files changed (``None`` removes one) behind the signature's back; ``__`` stands for ``/`` and ``_dot_`` for a dot."""
    files = read_archive(good_bundle())
    for name, content in changes.items():
        path = name.replace("__", "/").replace("_dot_", ".")
        if content is None:
            del files[path]
        else:
            files[path] = content
    return write_archive(files)


def token_of(raw: bytes) -> str:
    """The one token of a bundle."""
    token: str = json.loads(read_archive(raw)[".signatures.json"])["signatures"][0]
    return token


def payload_of(raw: bytes) -> dict[str, Any]:
    """The claims of a bundle."""
    payload: dict[str, Any] = json.loads(unbase64(token_of(raw).split(".")[1]))
    return payload


def unbase64(part: str) -> bytes:
    """Decode unpadded base64url."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def tokenised(header: Mapping[str, Any], payload: Mapping[str, Any], signature: bytes = b"x") -> str:
    """A compact token with any header, payload and signature."""
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def tarred(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A gzipped tar by Python's own writer, for members our writer would refuse."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(out.getvalue(), mtime=0)


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    """A member that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def trust(**changes: Any) -> TrustPolicy:
    """What a gateway that expects the good bundle is configured with."""
    key = TrustedKey("bundle", "ES256", "write", public_pem(signing_key()))
    return replace(TrustPolicy("main", "tidegate", (key,)), **changes)


def verified(
    raw: bytes, *, now: int = NOW, highest: int = 0, cosignatures: bytes | None = None, **changes: Any
) -> TrustedBundle:
    """Verify as a gateway would."""
    return verify_bundle(raw, trust(**changes), now=now, highest_sequence=highest, cosignatures=cosignatures)


def write_source(folder: Path) -> Path:
    """A tiny source directory with one connector, a test and a case; the shipped library joins at build."""
    document = {
        "connector": "shop", "version": "1.0.0", "caller_token": ["bearer"], "credential_places": ["bearer"],
        "auth": {"kind": "bearer"},
        "actions": [
            {"name": "order.read", "match": {"method": "GET", "path": "/orders/{id}"}, "mode": "read",
             "idempotent": True, "resource": {"type": "order", "id": "{id}"}, "arguments": {"schema": "order.json"}}
        ],
    }  # fmt: skip
    schema = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    files = {
        "policies/shop/shop.rego": (
            'package policies.shop\n\nallow contains "reads" if {\n\tinput.action.name == "shop.order.read"\n'
            '\t"reader" in input.subject.properties.roles\n}\n'
        ),
        "policies/shop/shop_test.rego": (
            'package policies.shop_test\n\ntest_reader_reads if "reads" in data.policies.shop.allow with input as '
            '{"action": {"name": "shop.order.read"}, "subject": {"properties": {"roles": ["reader"]}}}\n'
        ),
        "policies/shop/cases/stranger.json": json.dumps(
            {"input": question("shop.order.read", "shop", []), "decision": {"effect": "DENY"}}
        ),
        "connectors/shop/data.yaml": json.dumps(document),
        "connectors/shop/schemas/order.json": json.dumps(schema),
        "chains/data.json": '{"one-approver": {"steps": [{"id": "a", "role": "approver", "quorum": 1}]}}',
    }
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


def question(action: str, connector: str, roles: list[str]) -> dict[str, Any]:
    """An input document, version 1."""
    return {
        "v": 1,
        "subject": {"type": "agent", "id": "bot", "properties": {
            "tenant": "acme", "workspace": "it", "environment": "dev", "roles": roles, "amr": []}},
        "action": {"name": action, "properties": {
            "mode": "read", "risk": "low", "reversible": False, "idempotent": True}},
        "resource": {"type": "order", "id": "1", "properties": {"connector": connector, "instance": connector}},
        "args": {"id": "1"},
        "context": {"time": "2026-01-01T00:00:00.000Z", "call": "01call", "clock": {
            "unix": 1767225600, "weekday": "Thursday", "minute_of_day": 0, "zone": "UTC"}},
    }  # fmt: skip
