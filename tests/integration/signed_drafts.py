"""A signed bundle taken apart, so that any one thing in it can be spoilt and the rest put together and signed again.

A draft starts as a real bundle. Its three layers are kept apart: the members of the tar, what the token says, and the
bytes of the archive. What a test changes in the token is signed again by the right key unless the test takes another
one, and what it changes in the members is not.
"""

from __future__ import annotations

import base64
import gzip
import hmac
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bundles.archive import read_archive
from bundles.canonical import opa_canonical, sha256_hex

SIGNATURES = ".signatures.json"
STRUCTURED = ("data.json", ".manifest")


def encode(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(part: str) -> bytes:
    """The bytes of unpadded base64url."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def es256(key: ec.EllipticCurvePrivateKey, digest: hashes.HashAlgorithm | None = None) -> Callable[[bytes], bytes]:
    """A signer that writes a signature as JWS does: r and s, 32 bytes each."""

    def sign(signed: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest or hashes.SHA256())))
        width = (key.curve.key_size + 7) // 8
        return r.to_bytes(width, "big") + s.to_bytes(width, "big")

    return sign


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    """A signer with a shared secret."""
    return lambda signed: hmac.digest(secret, signed, "sha256")


def hashed(name: str, content: bytes) -> str:
    """The hash that the list of files carries for a file."""
    return sha256_hex(opa_canonical(content) if name.rpartition("/")[2] in STRUCTURED else content)


@dataclass
class Draft:
    """A bundle that is put together by ``pack``; every field may be changed before."""

    members: dict[str, bytes]
    header: dict[str, Any]
    payload: dict[str, Any]
    sign: Callable[[bytes], bytes]
    public_pem: bytes
    token: Callable[[str], str] = lambda token: token
    document: Callable[[str], bytes] | None = lambda token: json.dumps({"signatures": [token]}).encode()
    header_text: Callable[[str], str] = lambda text: text
    payload_text: Callable[[str], str] = lambda text: text
    more: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    order: Callable[[list[str]], list[str]] = lambda names: names
    form: int = tarfile.USTAR_FORMAT
    tar: Callable[[bytes], bytes] = lambda raw: raw
    archive: Callable[[bytes], bytes] = lambda raw: raw

    def add(self, name: str, content: bytes, *, listed: bool) -> None:
        """One more member, behind the signature's back or in its list."""
        self.members[name] = content
        if listed:
            self.listed().append({"name": name, "hash": hashed(name, content), "algorithm": "SHA-256"})

    def replace(self, name: str, content: bytes, digest: str | None = None) -> None:
        """Other content under a name, signed."""
        self.members[name] = content
        self.entry(name)["hash"] = digest if digest is not None else hashed(name, content)

    def listed(self) -> list[dict[str, Any]]:
        """The token's list of files."""
        files: list[dict[str, Any]] = self.payload["files"]
        return files

    def entry(self, name: str) -> dict[str, Any]:
        """What the token says of one file."""
        return next(entry for entry in self.listed() if entry["name"] == name)

    def named(self, end: str) -> str:
        """The first member whose name ends so."""
        return next(name for name in self.members if name.endswith(end))

    def compact(self) -> str:
        """The token, signed."""
        header = self.header_text(json.dumps(self.header, separators=(",", ":")))
        payload = self.payload_text(json.dumps(self.payload, separators=(",", ":")))
        signed = f"{encode(header.encode())}.{encode(payload.encode())}"
        return self.token(f"{signed}.{encode(self.sign(signed.encode()))}")

    def pack(self) -> bytes:
        """The archive."""
        files = dict(self.members)
        if self.document is not None:
            files[SIGNATURES] = self.document(self.compact())
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=self.form) as tar:
            for name in self.order(list(files)):
                _put(tar, tarfile.TarInfo(name), files[name])
            for info, content in self.more:
                _put(tar, info, content)
        return self.archive(gzip.compress(self.tar(out.getvalue()), compresslevel=1, mtime=0))


def _put(tar: tarfile.TarFile, info: tarfile.TarInfo, content: bytes) -> None:
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def draft_of(raw: bytes, key: ec.EllipticCurvePrivateKey, public_pem: bytes) -> Draft:
    """Take a good bundle apart."""
    members = read_archive(raw)
    token = json.loads(members.pop(SIGNATURES))["signatures"][0]
    header, payload, _ = (decode(part) for part in token.split("."))
    claims = json.loads(payload)
    for entry in claims["files"]:
        entry["name"] = entry["name"].removeprefix("/")
    return Draft(members, json.loads(header), claims, es256(key), public_pem)
