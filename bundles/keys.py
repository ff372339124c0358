"""Keys on disk: made, read and written here and nowhere else in this package.

Guarantees: a private key is written 0600, never over an existing file, and read only when no other user can read it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bundles.errors import BundleMisuse, BundleUnavailable
from bundles.jws import PrivateKey, check_key, default_algorithm


def generate_signing_key(path: Path) -> PrivateKey:
    """Make a P-256 key, keep it at ``path`` (0600) and return it; an existing file is never replaced."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, private_pem(key))
    return key


def load_private_key(path: Path) -> PrivateKey:
    """Read a signing key; raises :class:`BundleMisuse` when it is no fit key or others may read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(1 << 16)
    except OSError as refused:
        raise BundleUnavailable("key_unavailable", f"{path}: {refused.strerror}") from refused
    if b"PRIVATE KEY" not in pem:
        raise BundleMisuse("bundle_key_unfit", f"{path} is no private key in PEM form; a public one only verifies")
    if stat.S_IMODE(mode) & 0o077:
        raise BundleMisuse("key_exposed", f"{path} is readable by other users; chmod 600 it")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as refused:
        raise BundleMisuse("bundle_key_unfit", f"{path} is not an unencrypted PEM private key") from refused
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise BundleMisuse("bundle_key_unfit", f"{path} is neither an EC nor an RSA key")
    check_key(key.public_key(), default_algorithm(key))
    return key


def load_verifying_key(path: Path) -> tuple[str, bytes]:
    """The algorithm and public PEM of a key file that holds either half."""
    try:
        with path.open("rb") as file:
            pem = file.read(1 << 16)
    except OSError as refused:
        raise BundleUnavailable("key_unavailable", f"{path}: {refused.strerror}") from refused
    if b"PRIVATE KEY" in pem:
        private = load_private_key(path)
        return default_algorithm(private), public_pem(private)
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as refused:
        raise BundleMisuse("bundle_key_unfit", f"{path} is not a PEM key") from refused
    if not isinstance(public, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise BundleMisuse("bundle_key_unfit", f"{path} is neither an EC nor an RSA key")
    return default_algorithm(public), pem


def write_private(path: Path, content: bytes) -> None:
    """Write a secret that only its owner can read; an existing file is never replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    except FileExistsError as refused:
        raise BundleMisuse("key_exists", f"{path} exists and is left as it is") from refused
    except OSError as refused:
        raise BundleUnavailable("write_failed", f"{path}: {refused.strerror}") from refused


def private_pem(key: PrivateKey) -> bytes:
    """The key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PrivateKey) -> bytes:
    """The public half as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
